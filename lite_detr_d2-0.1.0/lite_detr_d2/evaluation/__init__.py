"""What is read off detections beyond AP."""
