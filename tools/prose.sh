#!/usr/bin/env bash
# Checks the text of all tracked files. It prints each hit as file:line with the text to write instead.
#   - No line has more than 120 columns. Lines with a word of more than 80 columns, such as a URL, are exempt,
#     and so are the texts of the web client.
#   - No sentence in a comment or a document begins with Who, Whoever or What, except in a question.
#   - No line has a word of tools/prose.txt.
# Arguments limit the check to these paths: tools/prose.sh store docs
set -euo pipefail
cd "$(dirname "$0")/.."

# Not checked: generated files, files from other projects, and the files that quote the words.
skip='^gen/|^rest/openapi\.json$|\.sum$|lock\.json$|^LICENSE$|^docs/benchmarks/profiles/|^docs/(benchmarks|comparison)/.*\.(svg|csv)$|(^|/)testdata/'
skip+='|^deploy/observability/grafana/dashboards/|^web/dist/|\.svg$'
skip+='|^tools/prose\.|^stack/prose_test\.go$'
# -I leaves out binary files.
git -c "safe.directory=$(pwd -P)" grep -lI '' -- "${@:-.}" |
  { grep -vE "$skip" || true; } |
  LC_ALL=C awk -v words=tools/prose.txt '
  function hit(text) {
    printf "%s:%d: %s\n", name, line, text
    hits++
    dir = name
    if (!sub("/.*", "/", dir)) dir = "."
    count[dir]++
  }

  # comment returns the comment in a line of source, or all of a line of a document.
  function comment(s) {
    if (kind == "text") return s
    if (kind == "slash") return match(s, /(^|[ \t])\/\//) ? substr(s, RSTART + RLENGTH) : ""
    if (kind == "script" || kind == "style") { # a line of a comment of several lines begins with a star
      if (kind == "script" && match(s, /(^|[ \t])\/\//)) return substr(s, RSTART + RLENGTH)
      return match(s, /\/\*+|^[ \t]*\*/) ? substr(s, RSTART + RLENGTH) : ""
    }
    if (kind == "dash") return match(s, /(^|[ \t])--/) ? substr(s, RSTART + RLENGTH) : ""
    return match(s, /(^|[ \t])#+/) ? substr(s, RSTART + RLENGTH) : ""
  }

  function check(s,    columns, text, i, found, rest, w) {
    columns = s
    gsub(/[\200-\277]/, "", columns) # a character of UTF-8 is one column
    if (length(columns) > 120 && name !~ /^web\/src\/i18n\//) { # there, a text is one line
      for (i = split(columns, w, /[ \t]+/); i > 0 && length(w[i]) <= 80; i--);
      if (i == 0) hit(length(columns) " columns: write at most 120")
    }
    if (kind == "text" && s ~ /^ *```/) fenced = !fenced
    if (fenced) return
    text = comment(s)
    gsub(/`[^`]*`|"[^"]*"/, "x", text)
    while (match(text, /(^|[^A-Za-z0-9_])(Whoever|Who|What)[ \047]/)) {
      found = substr(text, RSTART, RLENGTH)
      gsub(/[^A-Za-z]/, "", found)
      text = rest = substr(text, RSTART + RLENGTH)
      sub(/[.?].*/, "?", rest)
      if (substr(text, length(rest), 1) != "?")
        hit("the sentence begins with \"" found "\": begin with the thing that it is about")
    }
    text = tolower(s)
    if (text !~ any) return
    gsub(/(user|run as) nobody/, "", text) # the account of that name
    gsub(/[\047\042`]\^?gone|gone\\\./, "", text) # the name of an erased user
    for (i = 1; i <= n; i++) if (text ~ pattern[i]) {
      match(text, pattern[i])
      found = substr(text, RSTART, RLENGTH)
      gsub(/^[^a-z0-9]+|[^a-z0-9]+$/, "", found)
      hit("\"" found "\": write instead: " instead[i])
    }
  }

  BEGIN {
    FS = "\t"
    while ((getline <words) > 0) if ($0 != "" && $0 !~ /^#/) {
      pattern[++n] = "(^|[^a-z0-9_-])(" $1 ")([^a-z0-9_-]|$)"
      instead[n] = $2
      all = all (n > 1 ? "|" : "") $1
    }
    any = "(^|[^a-z0-9_-])(" all ")([^a-z0-9_-]|$)"
    if (n == 0) { print "tools/prose.sh: there are no words in " words; exit 2 }
  }
  {
    name = $0; line = 0; fenced = 0; kind = "hash"
    if (name ~ /\.(md|txt)$/) kind = "text"
    else if (name ~ /\.(go|proto|mod)$/) kind = "slash"
    else if (name ~ /\.(ts|tsx|mjs|js)$/) kind = "script"
    else if (name ~ /\.css$/) kind = "style"
    else if (name ~ /\.sql$/) kind = "dash"
    while ((getline s <name) > 0) { line++; check(s) }
    close(name)
  }
  END {
    if (hits == 0) exit
    for (dir in count) printf "%6d in %s\n", count[dir], dir | "sort -k 3"
    close("sort -k 3")
    exit 1
  }'
