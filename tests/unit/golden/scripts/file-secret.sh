set -e
p=/etc/secret; d=/etc
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
aHVudGVyMjIK
_END_
s=$(sha256sum < "$t"); [ "${s%% *}" = 74f26b89307aa7d91081cedce29734f6dba8c2555c2787a8932fba420784b82b ] || { echo "the content did not arrive whole" >&2; exit 1; }
chown root:root "$t"
chmod 0600 "$t"
if [ -L "$p" ]; then now=link
elif [ -f "$p" ]; then s=$(sha256sum < "$p"); now=${s%% *}
elif [ -e "$p" ]; then now=other
else now=absent
fi
[ "$now" = 0263829989b6fd954f72baaf2fc64bc2e2f01d692d4de72986ea808f6e99813f ] || {
  echo "$p was changed by somebody else since it was read: look at it, then run again" >&2; exit 1
}
if selinuxenabled 2>/dev/null; then
  if [ -e "$p" ] && l=$(restorecon -n -v "$p" 2>/dev/null) && [ -z "$l" ]
  then chcon --reference="$p" "$t"
  else chcon "$(matchpathcon -n "$p")" "$t"
  fi 2>/dev/null || :
fi
dd if=/dev/null conv=notrunc,fsync status=none of="$t"
mv -fT "$t" "$p"
