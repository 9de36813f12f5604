#!/bin/sh
# Render, convert, train, evaluate and predict: writes demo/scenes.png and demo/prediction.png.
set -eu
step() { printf '\n\033[1m== %s\033[0m\n' "$1"; }

step "1/5 Render 2,200 scenes of rooms_ring_camera (1,980 train, 220 test); no download needed"
gqn-data render rooms_ring_camera --scenes 2200 --root demo/data

step "2/5 Convert the TFRecords to Zarr shards"
gqn-data convert rooms_ring_camera --root demo/data
gqn-data info demo/data/zarr/rooms_ring_camera
gqn-data view demo/data/zarr/rooms_ring_camera -o demo/scenes.png

step "3/5 Train the preset tiny on 32x32 frames"
if [ -d demo/run ]; then
    gqn train --resume demo/run
else
    gqn train --shards demo/data/zarr/rooms_ring_camera --preset tiny --out demo/run
fi

step "4/5 Evaluate on test scenes, next to two baselines"
gqn evaluate demo/run --context 1,3,5 --samples 16

step "5/5 Predict views of test scenes, which the network has not seen"
gqn sample demo/run -o demo/prediction.png
printf '\nSee demo/scenes.png and demo/prediction.png\n'
