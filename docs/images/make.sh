#!/usr/bin/env bash
# All pictures of the documentation: docs/images/make.sh [PYTHON], in a checkout in which `make demo` has run, and
# projects/LiteDETR/demo_digits.py --output output/demo_plain MODEL.LITE_DETR.ENCODER.KEY_AWARE False
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-.venv/bin/python}
tools=projects/LiteDETR
pictures=docs/images

"$python" $pictures/drawn_digits.py output/drawn
"$python" $pictures/interleaved.py $pictures/interleaved.svg

"$python" $tools/predict.py output/demo --input output/drawn/images --output output/found --threshold 0.4
"$python" $pictures/sheet.py $pictures/detections.png output/found/drawn_{04,12,15,16}.png

"$python" $tools/visualize_attention.py output/demo --image output/drawn/images/drawn_16.png --object 1 \
    --output output/attention.png
"$python" $tools/visualize_attention.py output/demo --image output/drawn/images/drawn_04.png --object 1 --decoder \
    --output output/attention_decoder.png
"$python" $tools/visualize_attention.py output/demo_plain output/demo --image output/drawn/images/drawn_16.png \
    --object 1 --output output/attention_both.png
for picture in attention attention_decoder attention_both; do
    "$python" $pictures/sheet.py $pictures/$picture.png output/$picture.png
done

"$python" $tools/evaluate.py output/demo --output output/evaluation
cp output/evaluation/{errors,confusion}.png $pictures
"$python" $tools/plot_metrics.py output/demo --output $pictures/curves.png

"$python" $tools/evaluate.py output/demo --dataset output/drawn --output output/evaluation_drawn
"$python" $tools/visualize_data.py --config-file configs/dino/lite_dino_tiny.yaml --dataset output/drawn --seed 0 \
    --images 8 --output output/samples.png --statistics output/statistics.png
"$python" $tools/paper_tables.py --tables 3 4 --figure output/tradeoff.png > /dev/null
"$python" $pictures/sheet.py --width 1400 --height 1250 $pictures/worst.png output/evaluation_drawn/worst.png
for picture in samples statistics tradeoff; do
    "$python" $pictures/sheet.py --width 1200 $pictures/$picture.png output/$picture.png
done
