# shellcheck shell=bash
# Sourced by the checks: `check ROW SUBJECT COMMAND…` runs a command and counts it, `finish` prints the table and gives the
# verdict.
rows=() failures=()
declare -A passed failed not_run

check() {
  local row=$1 subject=$2 output
  shift 2
  row_of "$row"
  if output=$("$@" 2>&1); then
    passed[$row]=$((passed[$row] + 1))
  else
    failed[$row]=$((failed[$row] + 1))
    failures+=("$row: $subject"$'\n'"$output")
  fi
}

# What could not be checked here, and why. Where it decides, that is a failure.
not_run() {
  if [ "${CI:-}" = true ]; then
    check "$1" "$2" false
  else
    row_of "$1"
    not_run[$1]=$2
  fi
}

row_of() {
  [ -n "${passed[$1]:-}" ] && return
  rows+=("$1")
  passed[$1]=0 failed[$1]=0
}

finish() {
  local row width=0 sum=0 bad=0
  [ "${#failures[@]}" = 0 ] || printf 'FAILED  %s\n\n' "${failures[@]}"
  for row in "${rows[@]}"; do
    [ "${#row}" -le "$width" ] || width=${#row}
    sum=$((sum + passed[$row])) bad=$((bad + failed[$row]))
  done
  printf "%-${width}s  passed  failed\n" checked
  for row in "${rows[@]}"; do
    printf "%-${width}s  %6s  %6s%s\n" "$row" "${passed[$row]}" "${failed[$row]}" "${not_run[$row]:+  NOT RUN: ${not_run[$row]}}"
  done
  printf '\n%s passed, %s failed\n' "$sum" "$bad"
  [ "$bad" = 0 ] && [ "$sum" -gt 0 ]
}
