#!/bin/bash
# The executor for Slurm on a real cluster, compared with a run on this machine: bytes, record, failures, and what a cluster does
# to jobs. It takes some minutes, so it stands beside the tests.
#
#   tests/slurm/run.sh [PROGRAM]      # default: the release build
#   ONLY="2 7" STEPS=200 tests/slurm/run.sh
#
# ONLY names the parts to run: part 2 needs part 1, and parts 4, 6 and 8 need part 3. WORK is a folder that is kept, so that the
# parts can run one by one. STEPS is the length of a training that is long enough to be interrupted.
#
# The cluster: at least two nodes whose slurmd run on this machine (started by `slurmd -N NODE`), and a partition `urgent` that
# pre-empts the default one by requeueing. It needs python3.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$(realpath "${1:-$here/../../target/release/laptop-diff}")
work=$(realpath "${WORK:-$(mktemp -d)}"); mkdir -p "$work"; chmod 755 "$work"
trap 'cancel_all; [ -n "${WORK:-}" ] || rm -rf "$work"' EXIT
export LAPTOP_DIFF_DEVICE=cpu LAPTOP_DIFF_THREADS=1 HOME=$work XDG_CONFIG_HOME=$work/config
cd "$work"
[ -x "$program" ] || { echo "there is no $program: cargo build --release"; exit 1; }
start=$SECONDS
say() { printf '[%4d s] %s\n' $((SECONDS - start)) "$*"; }
die() { say "FAILED: $*"; squeue --me || true; tail -n 20 "$work"/*/runs/*/slurm/*.log 2>/dev/null || true; exit 1; }
cancel_all() { squeue --me -h -o '%i %k' | awk -v w="$work" 'index($2, w "/") { print $1 }' | xargs -r scancel; }

# A job fills a node of two cores, so that jobs side by side are on several nodes.
settings='slurm: { default: { cpus: 2 } }'
new() { # NAME [SETTINGS]: an empty folder for a run
  rm -rf "${work:?}/$1" "$1.said" "$1.nodes"; mkdir "$1"; echo "${2:-$settings}" >"$1/laptop-diff.yaml"
}
# The program on a cache and a runs folder of its own: `on NAME ARGUMENTS`.
on() { local name=$1; shift; (cd "$name" && "$program" "$@" --runs runs); }
launch() { # NAME ARGUMENTS: submits; prints what it says
  local name=$1; shift
  on "$name" run "$here/sweep.yaml" --executor slurm --cache cache "$@" 2>&1 | tee -a "$name.said"
}
# One value of `status --json`: an expression over `s`.
status() { on "$1" status sweep --json 2>/dev/null | python3 -c "import json,sys; s=json.load(sys.stdin); print($2)"; }
live() { status "$1" "sum(j['live'] for j in s['jobs'])" || echo 1; }
# The job of a stage, and its state.
job_of() { status "$1" "next(t['job'] for t in s['stages'] if t['id'] == '$2')"; }
state_of() { squeue -h -j "$1" -o %T 2>/dev/null || true; }
# A requeued job waits two minutes by itself. A node refuses it in the first second or two, as killed already.
hurry() {
  local ids id
  ids=$(squeue --me -h -t PENDING -o '%i %r %k' | awk -v w="$work" '$2 == "BeginTime" && index($3, w "/") { print $1 }')
  [ -n "$ids" ] || return 0
  sleep 5
  for id in $ids; do scontrol update JobId="$id" StartTime=now || true; done
}
finish() { # NAME SECONDS: waits for the end of the run
  local until=$((SECONDS + $2))
  while [ "$(live "$1")" -gt 0 ]; do
    [ $SECONDS -lt $until ] || die "$1 is not over after $2 s"
    hurry; status "$1" "'\n'.join(j['nodes'] for j in s['jobs'] if j['live'] and j['nodes'])" >>"$1.nodes"; sleep 1
  done
}
wait_for() { # SECONDS WHAT COMMAND...
  local until=$((SECONDS + $1)) what=$2; shift 2
  until "$@"; do [ $SECONDS -lt $until ] || die "no $what"; sleep 0.5; done
}
runs_again() { hurry; is_state "$1" RUNNING; }
is_state() { [ "$(state_of "$1")" = "$2" ]; }
has_progress() { grep -qsE "running  *$2: ([2-9][0-9]|[1-9][0-9]{2,})/" "$1"/runs/sweep/slurm/*.log; }
has_lines() { grep -q "$2" "$1"; }
# Compares run.json of two runs: ids, states, digests, errors, exit codes; and that report and links are there.
same() { # LOCAL CLUSTER
  python3 - "$1/runs/sweep" "$2/runs/sweep" <<'PY' || die "the record differs"
import json, os, re, sys
def read(folder):
    record = json.load(open(f"{folder}/run.json"))
    assert record["finished"] and os.path.getsize(f"{folder}/report.html") > 10_000, folder
    stages = []
    for stage in record["stages"]:
        artefact = stage["artefact"]
        if artefact:
            assert os.path.isdir(f"{folder}/{stage['id']}"), stage["id"]
        error = re.sub(r"\S*/runs/", "runs/", stage["error"] or "")
        stages.append((stage["id"], stage["state"], stage["key"], artefact and artefact["digest"], error))
    return record["exit_code"], stages
local, cluster = map(read, sys.argv[1:])
assert local[0] == cluster[0], (local[0], cluster[0])
for one, other in zip(local[1], cluster[1], strict=True):
    assert one == other, f"\n{one}\n{other}"
made = sum(1 for stage in local[1] if stage[3])
print(f"         exit code {local[0]}, {made} of {len(local[1])} artefacts with equal digests, equal states and errors")
PY
}
part() { # NUMBER WHAT: whether this part is to run
  [[ -z ${ONLY:-} || " $ONLY " == *" $1 "* ]] && say "$1. $2"
}
slurmd_of() { pgrep -f "slurmd .*-N $1( |\$)" | head -n 1; }
descend() { local c; for c in $(pgrep -P "$1"); do echo "$c"; descend "$c"; done; }

if part 1 "the run on this machine"; then
  new local
  on local run "$here/sweep.yaml" --cache cache >/dev/null 2>&1 || die "the local run"
fi

if part 2 "the same on the cluster; a second submission finds the jobs"; then
  new plain
  launch plain
  before=$(live plain)
  said=$(launch plain); grep -q 'in the queue already' <<<"$said" || die "it was submitted twice"
  [ "$(live plain)" -le "$before" ] || die "there are more jobs than before"
  finish plain 600
  same local plain
  nodes=$(sort -u plain.nodes | grep -c .)
  [ "$nodes" -ge 2 ] || die "only $nodes node was used"
  say "   on $nodes nodes: $(sort -u plain.nodes | xargs)"
  said=$(launch plain); grep -q 'no job is needed' <<<"$said" || die "everything is cached"
fi

long=(--set retrained.training.steps=${STEPS:-400})
if part 3 "a long training on this machine, for the next ones"; then
  new long
  on long run "$here/sweep.yaml" --cache cache "${long[@]}" --over selection.ratio=0.5 >/dev/null 2>&1 || die "the local run"
fi

if part 4 "a node dies under the training"; then
  # What is killed writes no checkpoint, so there must be one.
  new killed "checkpoint-every-steps: 10"$'\n'"$settings"
  launch killed "${long[@]}" --over selection.ratio=0.5
  wait_for 300 "training" has_progress killed retrained@ratio=0.5
  job=$(job_of killed retrained@ratio=0.5); node=$(squeue -h -j "$job" -o %N); slurmd=$(slurmd_of "$node")
  mapfile -d '' -t command <"/proc/$slurmd/cmdline"
  mapfile -t steps < <(pgrep -f "slurmstepd: \[$job\.")
  mapfile -t all < <(for step in "${steps[@]}"; do echo "$step"; descend "$step"; done)
  say "   job $job on $node: kill slurmd $slurmd and ${#all[@]} processes of the job"
  kill -KILL "$slurmd" "${all[@]}" 2>/dev/null || true
  wait_for 300 "requeue" is_state "$job" PENDING
  wait_for 60 "second turn" runs_again "$job"
  [ "$(squeue -h -j "$job" -o %N)" != "$node" ] || die "it runs on the dead node"
  setsid nohup "${command[@]}" >/dev/null 2>&1 </dev/null &
  finish killed 600
  has_lines "killed/runs/sweep/events.jsonl" '"stage-resumed","stage":"retrained@ratio=0.5"' || die "it began anew"
  same long killed
fi

if part 5 "an urgent job takes the nodes from an array of trainings"; then
  both=("${long[@]}" --over selection.ratio=0.3,0.5)
  new long-both
  on long-both run "$here/sweep.yaml" --cache cache "${both[@]}" >/dev/null 2>&1 || die "the local run"
  # Trainings that ask for something else than the stage before them: each waits for the task of its number.
  new preempted 'slurm: { default: { cpus: 2 }, distill: { time: "0:30:00" } }'
  launch preempted "${both[@]}"
  jobs=$(status preempted "' '.join(t['job'] for t in s['stages'] if t['id'].startswith('retrained'))")
  grep -qE '^([0-9]+)_0 \1_1$' <<<"$jobs" || die "the trainings are no array: $jobs"
  scontrol show job "${jobs%% *}" | grep -q aftercorr || die "it waits for something else"
  wait_for 300 "training" has_progress preempted retrained@ratio=0.3
  wait_for 300 "training" has_progress preempted retrained@ratio=0.5
  sbatch --quiet -p urgent --nodes="$(sinfo -h -p urgent -o %D)" --exclusive --mem=0 -o /dev/null --wrap 'sleep 5'
  for job in $jobs; do wait_for 60 "requeue" is_state "$job" PENDING; done
  finish preempted 600
  for ratio in 0.3 0.5; do
    for event in interrupted resumed; do
      has_lines "preempted/runs/sweep/events.jsonl" "\"stage-$event\",\"stage\":\"retrained@ratio=$ratio\"" || die "$ratio was not $event"
    done
    has_lines "preempted/runs/sweep/slurm/retrained@ratio=$ratio.log" "retrained@ratio=$ratio" || die "there is no log of $ratio"
  done
  same long-both preempted
fi

if part 6 "a time limit that is too short for the training"; then
  # As many steps as take two minutes on one core: it is told 30 seconds before its limit, or up to a minute earlier.
  steps=$(python3 - long/runs/sweep/events.jsonl "${STEPS:-400}" <<'PY'
import json, sys
events = [json.loads(line)["event"] for line in open(sys.argv[1])]
seconds = next(e["seconds"] for e in events if e["type"] == "stage-done" and e["stage"] == "retrained@ratio=0.5")
print(max(int(sys.argv[2]), int(int(sys.argv[2]) * 120 / seconds)))
PY
)
  longer=(--set retrained.training.steps="$steps" --over selection.ratio=0.5)
  say "   $steps steps, on this machine first"
  new limited-local
  on limited-local run "$here/sweep.yaml" --cache cache "${longer[@]}" >/dev/null 2>&1 || die "the local run"
  new limited 'slurm: { default: { cpus: 1 }, distill: { time: "2" } }'
  launch limited "${longer[@]}"
  finish limited 900
  for event in interrupted resumed; do
    has_lines "limited/runs/sweep/events.jsonl" "\"stage-$event\",\"stage\":\"retrained@ratio=0.5\"" || die "it was not $event"
  done
  say "   the training was resumed $(grep -c '"stage-resumed","stage":"retrained' limited/runs/sweep/events.jsonl) times"
  same limited-local limited
fi

if part 7 "a branch fails"; then
  new failed-local; new failed
  set +e; on failed-local run "$here/sweep.yaml" --cache cache --over selection.ratio=0.999,0.3 --keep-going >/dev/null 2>&1; set -e
  launch failed --over selection.ratio=0.999,0.3
  finish failed 600
  same failed-local failed
fi

if part 8 "cancelled, and submitted again"; then
  new cancelled
  launch cancelled "${long[@]}" --over selection.ratio=0.5
  wait_for 300 "training" has_progress cancelled retrained@ratio=0.5
  on cancelled cancel sweep
  [ "$(live cancelled)" = 0 ] || die "jobs are left"
  state=$(status cancelled "s['state'], next(t['state'] for t in s['stages'] if t['id'] == 'retrained@ratio=0.5')")
  [ "$state" = 'interrupted interrupted' ] || die "the state is $state"
  launch cancelled "${long[@]}" --over selection.ratio=0.5
  finish cancelled 600
  has_lines "cancelled/runs/sweep/events.jsonl" '"stage-resumed","stage":"retrained@ratio=0.5"' || die "it began anew"
  python3 - long/runs/sweep/run.json cancelled/runs/sweep/run.json <<'PY' || die "the digests differ"
import json, sys
one, other = ({s["id"]: s["artefact"]["digest"] for s in json.load(open(path))["stages"]} for path in sys.argv[1:])
assert one == other
PY
fi

if part 9 "what Slurm refuses"; then
  new refused 'slurm: { default: { partition: nowhere } }'
  set +e; said=$(launch refused); set -e
  grep -q 'nowhere' <<<"$said" && grep -q 'slurm::refused' <<<"$said" || die "it says: $said"
fi

say "all is well"
