#!/bin/sh
# As the official image's: a configuration alone is served, and the registry's own subcommands need no program's name.
set -e
case "${1:-}" in
*.yaml | *.yml) set -- registry serve "$@" ;;
serve | garbage-collect | help | -*) set -- registry "$@" ;;
esac
exec "$@"
