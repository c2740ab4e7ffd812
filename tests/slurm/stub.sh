#!/bin/bash
# A cluster of one machine for tests of what is said to Slurm and read from it: each command of Slurm is a link to this script.
# $STUB holds a folder for each job: script, dependency, state, reason. `play` runs the jobs that may start.
jobs=$STUB/jobs
mkdir -p "$jobs"
all() { find "$jobs" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -n; }
option() { sed -n "s/^#SBATCH --$2=//p" "$jobs/$1/script" | tr -d '"' | head -n 1; }
state() { cat "$jobs/$1/state"; }
is_over() { case $(state "$1") in PENDING | RUNNING) return 1 ;; esac; }

may_start() { # afterok:1:2 or afterany:1:2; cancels what can never start
  local kind=${1%%:*} rest=${1#*:} id
  [ -z "$1" ] && return 0
  for id in ${rest//:/ }; do
    is_over "$id" || return 1
    if [ "$kind" = afterok ] && [ "$(state "$id")" != COMPLETED ]; then echo CANCELLED >"$jobs/$2/state"; return 1; fi
  done
}

case $(basename "$0") in
  sbatch)
    [ "$1" = --version ] && { echo slurm-stub; exit; }
    script=${*: -1}; count=$(all | wc -l)
    [ "${STUB_FAIL_AT:-none}" = "$count" ] && { echo "sbatch: error: invalid partition specified: nowhere" >&2; exit 1; }
    id=$((101 + count)); mkdir "$jobs/$id"; cp "$script" "$jobs/$id/script"
    for argument; do case $argument in --dependency=*) echo "${argument#*=}" >"$jobs/$id/after" ;; esac; done
    echo PENDING >"$jobs/$id/state"; echo JobHeldUser >"$jobs/$id/reason"
    [ "${STUB_KILL_AT:-none}" = "$count" ] && kill -KILL $PPID
    echo "$id" ;;
  squeue)
    for id in $(all); do echo "$id|$(state "$id")|$(cat "$jobs/$id/reason")||0:00|$(option "$id" comment)"; done ;;
  scontrol)
    verb=$1; shift
    for id in ${*//,/ }; do
      case $verb in
        release) echo Dependency >"$jobs/$id/reason" ;;
        requeue) echo PENDING >"$jobs/$id/state"; echo x >>"$jobs/$id/requeued" ;;
      esac
    done ;;
  scancel)
    shift
    for id; do is_over "$id" || echo CANCELLED >"$jobs/$id/state"; done ;;
  sacct) echo "Slurm accounting storage is disabled" >&2; exit 1 ;;
  srun)
    while [[ $1 == -* ]]; do shift; done
    # A file `interrupt` or `kill` names the stage at which that happens, once.
    for what in interrupt kill; do
      if [ -e "$STUB/$what" ] && [[ "$*" == *"$(cat "$STUB/$what")"* ]]; then
        log=$(sed -n 's/^#SBATCH --output=//p' "$STUB/jobs/$SLURM_JOB_ID/script"); log=${log%.log}.jsonl
        "$@" & step=$!
        until grep -q "stage-started.*$(cat "$STUB/$what")" "$log" 2>/dev/null || ! kill -0 $step; do sleep 0.02; done
        sleep 0.3
        rm "$STUB/$what"
        [ $what = kill ] && kill -KILL $step || kill -USR1 $step
        wait $step; exit $?
      fi
    done
    exec "$@" ;;
  play)
    for id in $(all); do
      [ "$(state "$id")" = PENDING ] && [ "$(cat "$jobs/$id/reason")" != JobHeldUser ] || continue
      may_start "$(cat "$jobs/$id/after" 2>/dev/null)" "$id" || continue
      echo RUNNING >"$jobs/$id/state"
      restarts=$(cat "$jobs/$id/requeued" 2>/dev/null | wc -l)
      (cd "$(option "$id" chdir)" && SLURM_JOB_ID=$id SLURM_RESTART_COUNT=$restarts \
        bash "$jobs/$id/script" >>"$(option "$id" output)" 2>&1) && ended=COMPLETED || ended=FAILED
      [ "$(state "$id")" = RUNNING ] && echo $ended >"$jobs/$id/state"
    done ;;
esac
exit 0
