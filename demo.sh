#!/bin/sh
# Render, convert, train two models side by side, evaluate, predict. Writes demo/scenes.png, demo/prediction.png,
# demo/evaluation.txt and demo/timings.txt. A second call resumes where the first one ended.
set -eu
SCENES=${SCENES:-2200}
SWEEP_STEPS=${SWEEP_STEPS:-2000}
GQN_STEPS=${GQN_STEPS:-6000}
SHARDS=demo/data/zarr/rooms_ring_camera

mkdir -p demo
begin=$(date +%s)
echo "seconds since the start, load averages of 1, 5 and 15 minutes (1 per busy core), step" >demo/timings.txt
note() { printf '%4d  %s  %s\n' $(($(date +%s) - begin)) "$(cut -d ' ' -f 1-3 /proc/loadavg)" "$1" >>demo/timings.txt; }
step() { note "$1"; printf '\n\033[1m== %s\033[0m\n' "$1"; }

# Become the training of a model on one core, or its continuation: train MODEL PRESET STEPS
train() {
    export OMP_NUM_THREADS=1
    if [ -f "demo/$1/config.json" ]; then
        exec gqn train --resume "demo/$1" --steps "$3"
    else
        exec gqn train --shards "$SHARDS" --preset "$2" --steps "$3" --threads 1 --precision auto --out "demo/$1"
    fi
}

# Print what `--precision auto` became: precision MODEL
precision() { sed -n 's/.*"precision": "\([a-z0-9]*\)".*/\1/p' "demo/$1/config.json"; }

step "1/5 Render $SCENES scenes of rooms_ring_camera, a tenth for testing; no download needed"
gqn-data render rooms_ring_camera --scenes "$SCENES" --root demo/data

step "2/5 Convert the TFRecords to Zarr shards"
gqn-data convert rooms_ring_camera --root demo/data
gqn-data info "$SHARDS"
gqn-data view "$SHARDS" -o demo/scenes.png

step "3/5 Train a plane sweep ($SWEEP_STEPS steps) and GQN ($GQN_STEPS steps) side by side, one core each"
echo "GQN writes to demo/gqn.log"
(train gqn tiny "$GQN_STEPS") >demo/gqn.log 2>&1 &
gqn=$!
# Stop the other training too if this one or the shell ends; it saves its last step.
trap 'kill "$gqn" 2>/dev/null || true; wait "$gqn" || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
(train plane_sweep sweep_tiny "$SWEEP_STEPS")
note "the plane sweep is trained, in $(precision plane_sweep)"
wait "$gqn" || { tail -n 20 demo/gqn.log; echo "the training of GQN failed: demo/gqn.log"; exit 1; }
trap - EXIT INT TERM HUP
note "GQN is trained, in $(precision gqn)"
head -n 1 demo/gqn.log
tail -n 4 demo/gqn.log

step "4/5 Evaluate both on test scenes, next to two baselines"
gqn evaluate demo/plane_sweep demo/gqn --context 1,3,5 --samples 16 >demo/evaluation.txt
cat demo/evaluation.txt

step "5/5 Predict views of test scenes, which the networks have not seen"
gqn sample demo/plane_sweep demo/gqn -o demo/prediction.png --samples 1
note "end"
printf '\n'
cat demo/timings.txt
printf '\nSee demo/scenes.png and demo/prediction.png\n'
