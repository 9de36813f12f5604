#!/bin/sh
# Render, convert, train two models side by side, evaluate, predict: writes demo/scenes.png and demo/prediction.png.
set -eu
SHARDS=demo/data/zarr/rooms_ring_camera
step() { printf '\n\033[1m== %s\033[0m\n' "$1"; }

# Become the training of a model for the steps of its preset, or of its run: train MODEL PRESET
train() {
    if [ -f "demo/$1/config.json" ]; then
        exec gqn train --resume "demo/$1"
    else
        exec gqn train --shards "$SHARDS" --preset "$2" --precision auto --out "demo/$1"
    fi
}

step "1/5 Render 2,200 scenes of rooms_ring_camera (1,980 train, 220 test); no download needed"
gqn-data render rooms_ring_camera --scenes 2200 --root demo/data

step "2/5 Convert the TFRecords to Zarr shards"
gqn-data convert rooms_ring_camera --root demo/data
gqn-data info "$SHARDS"
gqn-data view "$SHARDS" -o demo/scenes.png

step "3/5 Train the plane sweep and GQN on 32x32 frames, one core each; GQN writes to demo/gqn.log"
(train gqn tiny) >demo/gqn.log 2>&1 &
gqn=$!
# Stop the other training too if this one or the shell ends; it saves its last step.
trap 'kill "$gqn" 2>/dev/null || true; wait "$gqn" || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
(train plane_sweep sweep_tiny)
wait "$gqn" || { tail -n 20 demo/gqn.log; echo "the training of GQN failed: demo/gqn.log"; exit 1; }
trap - EXIT INT TERM HUP
tail -n 4 demo/gqn.log

step "4/5 Evaluate both on test scenes, next to two baselines"
gqn evaluate demo/plane_sweep demo/gqn --context 1,3,5 --samples 16

step "5/5 Predict views of test scenes, which the networks have not seen"
gqn sample demo/plane_sweep demo/gqn -o demo/prediction.png --samples 1
printf '\nSee demo/scenes.png and demo/prediction.png\n'
