#!/usr/bin/env bash
# One turn of a chat: a file goes up, an agent works, its answer is shown as it comes.
# Needs bash, curl (7.71 or newer) and jq.
#
#   chat.sh [-u USER] [-a AGENT] [-m MODEL] MESSAGE
#
# CARREL_URL and CARREL_API_KEY say where the daemon is and who asks.
set -euo pipefail

user=ana agent='' model=''
while getopts u:a:m: option; do
  case $option in
    u) user=$OPTARG ;;
    a) agent=$OPTARG ;; # claude or shell; else the daemon's own
    m) model=$OPTARG ;;
    *) exit 2 ;;
  esac
done
message=${*:$OPTIND:1} # a script, where the agent is shell
url=${CARREL_URL:-http://127.0.0.1:8642}

die() {
  printf 'chat: %s\n' "$*" >&2
  exit 1
}
[ -n "$message" ] || die 'usage: chat.sh [-u USER] [-a AGENT] [-m MODEL] MESSAGE'

# The key goes through a pipe: arguments are for all the host's processes to read.
key() { [ -z "${CARREL_API_KEY:-}" ] || printf 'Authorization: Bearer %s\n' "$CARREL_API_KEY"; }

# api PATH CURL-ARGUMENT…: prints an answer; one that tells of no success ends the chat.
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
api() {
  local path=$1 status
  shift
  status=$(curl --silent --show-error --path-as-is --header @<(key) --output "$answer" --write-out '%{http_code}' "$@" "$url$path") ||
    die "$url$path: no answer"
  [ "$status" -lt 300 ] || die "$(jq -r '"\(.code): \(.detail)"' "$answer" 2>/dev/null || echo "$url$path: status $status")"
  cat "$answer"
}
again=(--retry 3 --retry-all-errors) # where twice is as good as once
json=(--header 'Content-Type: application/json' --data-binary @-)

path=/v1/users/$(jq -rn --arg user "$user" '$user | @uri')
printf 'roof,2026-05-01\ndoor,2026-03-01\nattic,2026-04-01\n' |
  api "$path/files/plan.csv" "${again[@]}" --request PUT --data-binary @- | jq -r '"put plan.csv: \(.size) bytes"'

# With the key, a request that is sent again starts no second run.
run=$(jq -n --arg user "$user" --arg message "$message" --arg agent "$agent" --arg model "$model" \
  '{user_id: $user, message: $message, config: ({agent: $agent, model: $model} | map_values(select(. != "")))}' |
  api /v1/execute "${again[@]}" "${json[@]}" --header 'Prefer: respond-async' \
    --header "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid)" | jq -r .run_id)

# events SEQ: a line for each event after that one: its seq, type, approval if it asks
# for one, and what a person reads of it, as a JSON string. What did not come whole is
# left out.
events() {
  curl --silent --no-buffer --speed-limit 1 --speed-time 60 --header @<(key) \
    --header 'Accept: text/event-stream' --header "Last-Event-ID: $1" "$url/v1/runs/$run/events" |
    jq --raw-input --raw-output --unbuffered '
      select(startswith("data: ")) | .[6:] | fromjson? | .type as $type | .data as $d |
      "\(.seq) \($type) \($d.approval_id // "-") \(
        if $type == "TEXT_DELTA" then $d.text
        elif $type == "TOOL_CALL_START" then "\n[\($d.name)]\n"
        elif $type == "TOOL_CALL_RESULT" then "[\($d.name) \(if $d.is_error then "failed" else "ok" end)] \($d.result | rtrimstr("\n"))\n"
        elif $type == "APPROVAL_REQUESTED" then "\($d.tool) wants \($d.input | tojson): allow? [y/N] "
        elif $type == "APPROVAL_RESOLVED" then "[\($d.decision)]\n"
        elif $type == "RUN_FINISHED" then "\nfinished: \($d.tokens_used) tokens, $\($d.usage.cost_usd), \($d.duration) s\n"
        elif $type == "RUN_ERROR" then "\($d.code): \($d.message)"
        else "" end | tojson)"'
}

approve() { # APPROVAL: asks whoever is at the keyboard
  local typed='' decision=deny
  read -r typed <&3 || true
  [ "$typed" != y ] || decision=allow
  jq -n --arg decision "$decision" '{decision: $decision}' | api "/v1/runs/$run/approvals/$1" "${json[@]}" >/dev/null
}

# Each event once and in order: a connection that is lost is made again where it broke.
exec 3<&0
last=0 tries=0
while [ $((tries += 1)) -le 10 ]; do
  while read -r seq type approval text; do
    [ "$seq" = $((last + 1)) ] || die "$run: event $seq after event $last"
    last=$seq tries=0 text=${text:1:-1} # without its quotes, and then of those within
    text=${text//\\\"/\"}
    [ "$type" != RUN_ERROR ] || die "$(printf %b "$text")"
    printf %b "$text"
    [ "$type" != APPROVAL_REQUESTED ] || approve "$approval"
    [ "$type" != RUN_FINISHED ] || break 2
  done < <(events "$last")
  sleep $((tries / 2))
done
[ "$type" = RUN_FINISHED ] || die "$run: lost after event $last"

printf 'exec wc -l plan.csv: '
jq -n '{command: ["wc", "-l", "plan.csv"]}' | api "$path/exec" "${json[@]}" | jq -r '.stdout | rtrimstr("\n")'
echo 'get plan.csv:'
api "$path/files/plan.csv" "${again[@]}"
