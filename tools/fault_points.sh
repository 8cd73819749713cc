#!/bin/sh
# Every call of every kind fails once: tests/fault/pipeline_points.c, shared out over processes.
#
#   tools/fault_points.sh FAULT_PIPELINE_POINTS FOLDER [PROCESSES [SECONDS [KINDS [EVERY]]]]
#
# A piece is the calls of one kind of one job in a range of numbers; the last range of each ends where the job
# gets through. FOLDER keeps a table (*.tsv) and the messages (*.txt) of each finished piece. Pieces that are
# there are not done again: a campaign that ended early (after SECONDS no piece is begun) goes on with the same
# command and program. KINDS are those of inject.h: "alloc read write full thread device" unless given; "dry" is
# as much again as "alloc"; "cuda" and "lost" want a GPU. EVERY: `stacks` for samples by call stack. Prints the
# points tried per job and kind. PIECE in the environment is the length of a range (250; on a GPU, where a run takes
# seconds, 12). Exit code 1 where one was bad, 3 where pieces are missing.
set -u
export LC_ALL=C
program=$(realpath "$1") || exit 2
mkdir -p "$2" && cd "$2" || exit 2
processes=${3:-$(nproc)} until=$(($(date +%s) + ${4:-1000000})) kinds=${5:-alloc read write full thread device}
every=${6:-1}
PIECE=${PIECE:-250}
export program until every

hash=$(sha256sum < "$program" | cut -c1-16)
if [ "$(cat program 2>/dev/null || echo "$hash")" != "$hash" ]; then
    echo "fault_points.sh: $2 holds the pieces of another program, $(cat program), not of $hash" >&2
    exit 2
fi
echo "$hash" > program

# A line of counts is "render: alloc 10316+14064 read 216+3 ...": own calls, then the libraries'.
"$program" count > counts || exit 2
while read -r job calls; do
    for kind in $kinds; do
        last=$(echo "$calls" | sed -n "s/^\(.* \)\{0,1\}$kind \([0-9]*\)+.*/\2/p")
        [ -n "$last" ] || continue
        from=1
        while [ $((from + PIECE)) -le "$last" ]; do
            echo "$from ${job%:} $kind $((from + PIECE - 1))"
            from=$((from + PIECE))
        done
        echo "$from ${job%:} $kind"
    done
done < counts | sort -rn > pieces

# Late calls first: their runs take the longest.
xargs -P "$processes" -L 1 sh -c '
    name=$2-$3-$1
    if [ -f $name.tsv ] || [ "$(date +%s)" -ge "$until" ]; then exit 0; fi
    rm -f $name.part
    if "$program" full $name.part $2 $3 $every $1 ${4:-} > $name.txt 2>&1; then
        mv $name.part $name.tsv
    else
        echo "$name: the runner failed: $(tail -n 1 $name.txt)"
    fi' piece < pieces

missing=0
while read -r from job kind _; do
    [ -f "$job-$kind-$from.tsv" ] || missing=$((missing + 1))
done < pieces
cat ./*.tsv | awk -F '\t' '
    { tried[$1 " " $2]++; all++; if ($9 != "-") { bad[$1 " " $2]++; wrong++; print } }
    END {
        for (what in tried) print what, tried[what], "points,", bad[what] + 0, "bad"
        print all + 0, "points,", wrong + 0, "bad"
        exit wrong > 0
    }'
wrong=$?
echo "$missing of $(wc -l < pieces) pieces missing"
[ "$missing" -eq 0 ] || exit 3
exit $wrong
