set -e
p=/etc/mesos/zk
if [ -L "$p" ]; then now=link
elif [ -f "$p" ]; then s=$(sha256sum < "$p"); now=${s%% *}
elif [ -e "$p" ]; then now=other
else now=absent
fi
[ "$now" = c8c043ba34281c0b99017fdd73eeeb624ce2439b6e23bc995df68e675c904f40 ] || {
  echo "$p was changed by somebody else since it was read: look at it, then run again" >&2; exit 1
}
chown 0:mesos "$p"
chmod 0600 "$p"
if selinuxenabled 2>/dev/null; then restorecon "$p" || :; fi
