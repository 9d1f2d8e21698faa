set -e
p='/etc/it'"'"'s here/a b'; d='/etc/it'"'"'s here'
[ -d "$d" ] || { echo "folder $d does not exist" >&2; exit 1; }
base=/var/lib/runbook/staging
mkdir -p -m 700 "$base"
mount=$(stat -c %m "$d")
[ "$(stat -c %m "$base")" = "$mount" ] || base=${mount%/}
stage=$(mktemp -d "$base/.runbook.XXXXXX")
trap 'rm -rf "$stage"' EXIT
trap 'exit 1' HUP INT TERM
t=$stage/new
base64 -d > "$t" <<'_END_'
bmV3Cg==
_END_
s=$(sha256sum < "$t"); [ "${s%% *}" = 7aa7a5359173d05b63cfd682e3c38487f3cb4f7f1d60659fe59fab1505977d4c ] || { echo "the content did not arrive whole" >&2; exit 1; }
chown zookeeper:hadoop "$t"
chmod 0640 "$t"
if [ -L "$p" ]; then now=link
elif [ -f "$p" ]; then s=$(sha256sum < "$p"); now=${s%% *}
elif [ -e "$p" ]; then now=other
else now=absent
fi
[ "$now" = 4cf3dbe940d75d80768c0008da361741a3b522224504c3f652e254ecdfb30ee1 ] || {
  echo "$p was changed by somebody else since it was read: look at it, then run again" >&2; exit 1
}
b="$RUNBOOK_BACKUP"
if [ -e "$p" ] && ! [ -e "$b$p" ]; then
  mkdir -p -m 700 /var/lib/runbook/backup "$b"; mkdir -p "$b$d"; cp -p "$p" "$b/.part"
  dd if=/dev/null conv=notrunc,fsync status=none of="$b/.part"; mv -f "$b/.part" "$b$p"
fi
if selinuxenabled 2>/dev/null; then
  if [ -e "$p" ] && l=$(restorecon -n -v "$p" 2>/dev/null) && [ -z "$l" ]
  then chcon --reference="$p" "$t"
  else chcon "$(matchpathcon -n "$p")" "$t"
  fi 2>/dev/null || :
fi
dd if=/dev/null conv=notrunc,fsync status=none of="$t"
mv -fT "$t" "$p"
