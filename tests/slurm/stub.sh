#!/bin/bash
# A cluster of one machine for tests of what is said to Slurm and read from it: each command of Slurm is a link to this script.
# $STUB holds a folder for each job: script, dependency, state, reason. `play` runs the jobs that may start.
jobs=$STUB/jobs
mkdir -p "$jobs"
# A task of an array has a folder of its own, 101_0.
all() { find "$jobs" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -V; }
# The job itself, or all tasks of an array: `expand 101`, `expand 101_0`.
expand() { if [ -d "$jobs/$1" ]; then echo "$1"; else all | grep "^$1_"; fi; }
option() { sed -n "s/^#SBATCH --$2=//p" "$jobs/$1/script" | tr -d '"' | head -n 1; }
# The file that a job prints into.
output() { local name; name=$(option "$1" output); echo "${name//%a/${1#*_}}"; }
state() { cat "$jobs/$1/state"; }
is_over() { case $(state "$1") in PENDING | RUNNING) return 1 ;; esac; }

may_start() { # afterok:1:2_0,aftercorr:3 or afterany:1:2; cancels what can never start
  local part kind rest ids id
  for part in ${1//,/ }; do
    kind=${part%%:*} rest=${part#*:} ids=
    for id in ${rest//:/ }; do
      if [ "$kind" = aftercorr ]; then ids+=" ${id}_${2#*_}"; else ids+=" $(expand "$id")"; fi
    done
    for id in $ids; do
      is_over "$id" || return 1
      if [ "$kind" != afterany ] && [ "$(state "$id")" != COMPLETED ]; then echo CANCELLED >"$jobs/$2/state"; return 1; fi
    done
  done
}

case $(basename "$0") in
  sbatch)
    [ "$1" = --version ] && { echo slurm-stub; exit; }
    script=${*: -1}; count=$(all | sed 's/_.*//' | sort -u | wc -l)
    [ "${STUB_FAIL_AT:-none}" = "$count" ] && { echo "sbatch: error: invalid partition specified: nowhere" >&2; exit 1; }
    id=$((101 + count)); tasks=$(sed -n 's/^#SBATCH --array=//p' "$script"); tasks=${tasks%\%*}
    for job in $([ -z "$tasks" ] && echo $id || printf "${id}_%s\n" ${tasks//,/ }); do
      mkdir "$jobs/$job"; cp "$script" "$jobs/$job/script"
      for argument; do case $argument in --dependency=*) echo "${argument#*=}" >"$jobs/$job/after" ;; esac; done
      echo PENDING >"$jobs/$job/state"; echo JobHeldUser >"$jobs/$job/reason"
    done
    [ "${STUB_KILL_AT:-none}" = "$count" ] && kill -KILL $PPID
    echo "$id" ;;
  squeue)
    for id in $(all); do echo "$id|$(state "$id")|$(cat "$jobs/$id/reason")||0:00|$(option "$id" comment)"; done ;;
  scontrol)
    verb=$1; shift
    [ "$verb" = show ] && { echo "MaxArraySize            = ${STUB_MOST:-1001}"; exit; }
    for given in ${*//,/ }; do
      for id in $(expand "$given"); do
        case $verb in
          release) echo Dependency >"$jobs/$id/reason" ;;
          requeue) echo PENDING >"$jobs/$id/state"; echo x >>"$jobs/$id/requeued" ;;
        esac
      done
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
        # Beside the log of the stage, to which that of an array is a link.
        log=$(readlink -f "$STUB_OUTPUT"); log=${log%.log}.jsonl
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
      # The number of an array is that of one of its tasks too.
      case $id in *_*) export SLURM_ARRAY_JOB_ID=${id%_*} SLURM_ARRAY_TASK_ID=${id#*_} ;; *) unset SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID ;; esac
      (cd "$(option "$id" chdir)" && SLURM_JOB_ID=${id%_*} STUB_OUTPUT=$(output "$id") SLURM_RESTART_COUNT=$restarts \
        bash "$jobs/$id/script" >>"$(output "$id")" 2>&1) && ended=COMPLETED || ended=FAILED
      [ "$(state "$id")" = RUNNING ] && echo $ended >"$jobs/$id/state"
    done ;;
esac
exit 0
