"""A small paper, and figures of ours to stand beside it."""

import json
from pathlib import Path
from typing import Any

from lite_detr_d2.analysis import Figures

# 800 x 1066: 100 x 134, 50 x 67, 25 x 34 and 13 x 17 tokens.
FIGURES = {
    "dino_r50": Figures(46.88, 234.21, 70.36, 138.67, 19.36, (13400, 3350, 850, 221)),
    "lite_dino_r50": Figures(47.7, 150.84, 70.36, 55.04, 19.6, (13400, 3350, 850, 221)),
}
CONTENT: dict[str, Any] = {
    "tables": {
        "1": {
            "title": "models",
            "columns": ["model", "AP", "GFLOPs", "decoder GFLOPs", "config", "notes"],
            "rows": [
                ["DINO", 50.7, 235, 28, "dino_r50", "y"],
                ["Lite-DINO H3L1", 50.4, 151, None, "lite_dino_r50", ""],
                ["YOLO", 50.0, 206, None, None, ""],
                ["no GFLOPs", 49.0, None, None, None, ""],
            ],
        },
        "2": {"title": "shares", "columns": ["S1", "S4", "config", "notes"], "rows": [[1.17, 75.3, "dino_r50", "xy"]]},
    },
    "counted": {"GFLOPs": "total", "encoder GFLOPs": "encoder", "decoder GFLOPs": "others", "S1": "S1", "S4": "S4"},
    "measured": ["AP"],
    "zoo": ["1"],
    "figure": {"tables": ["1"], "detectors": [{"name": "DINO, R-50", "plain": "dino_r50", "lite": ["lite_dino_r50"]}]},
    "reference": {"dino_r50": {"total": 234.61, "encoder": 138.67}},
    "notes": {"x": "About rounding.", "y": "About parts.", "z": "Of no row."},
}


def write_paper(path: Path, content: object = CONTENT) -> Path:
    path.write_text(json.dumps(content))
    return path
