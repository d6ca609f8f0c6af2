#!/usr/bin/env bash
# A batch of jobs in several processes, and a coordinator that waits for all of them.
#
#     examples/batch_jobs.sh                              in a store of its own, which is removed at the end
#     GROUPER_STORE=sqlite:/var/tmp/jobs.db examples/batch_jobs.sh
#     GROUPER="python -m grouper" examples/batch_jobs.sh  where `grouper` is not in PATH
#
# Three ways, each for another kind of worker:
#
#     tickets     the coordinator counts the jobs before it starts them, each worker says when it is done
#     members     `run` counts a worker for as long as it lives, so that one that crashes is told, and not waited for
#     stages      each stage waits for the group of the one before
#
# Its status is 0, though one of the members is killed: that is what it shows.

set -euo pipefail

read -ra grouper <<< "${GROUPER:-grouper}"
waitgroup() { "${grouper[@]}" waitgroup "$@"; }

if [[ -z ${GROUPER_STORE:-} ]]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    export GROUPER_STORE="sqlite:$folder/jobs.db"
fi
batch="batch-$$" # of this run alone: names are shared by all who use the store

echo "== tickets"

waitgroup create "$batch" --count 4 --ttl 1h # counted before anybody can be done
for part in 1 2 3 4; do
    (
        echo "part $part is done"
        waitgroup done "$batch" > /dev/null
    ) &
done
waitgroup wait "$batch" --timeout 30m
waitgroup delete "$batch"

echo "== members"

# A ticket says that a worker is to come: without one, the group could count zero before the last of them has begun. The worker
# settles it when it is a member. One that does not come within a minute is lost.
waitgroup create "$batch"
waitgroup add "$batch" --delta 3 --for 1m
for part in 1 2 3; do
    waitgroup run "$batch" --id "part-$part" -- bash -euo pipefail -c '
        "${@:2}" waitgroup done "$0" > /dev/null
        if [[ $1 == 2 ]]; then
            kill -9 "$PPID" # as the kernel does when memory runs out
            exit
        fi
        echo "part $1 is done"
    ' "$batch" "$part" "${grouper[@]}" &
done
status=0
waitgroup wait "$batch" --timeout 30m || status=$?
case $status in
    0) echo "all are done" ;;
    4) echo "some take too long:" && waitgroup status "$batch" ;;
    5) echo "some were lost: their work is to be done again" ;;
    *) exit "$status" ;;
esac
waitgroup delete "$batch"

echo "== stages"

for stage in fetch build ship; do
    waitgroup create "$batch-$stage" --count 2
done
before=
for stage in fetch build ship; do
    for part in 1 2; do
        (
            if [[ -n $before ]]; then
                waitgroup wait "$batch-$before" --timeout 30m > /dev/null
            fi
            echo "$stage $part"
            waitgroup done "$batch-$stage" > /dev/null
        ) &
    done
    before=$stage
done
waitgroup wait "$batch-$before" --timeout 30m
for stage in fetch build ship; do
    waitgroup delete "$batch-$stage"
done
wait || true # for the jobs of this shell, of which one was killed
