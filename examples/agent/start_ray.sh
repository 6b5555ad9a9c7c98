#!/bin/sh
# Starts this machine's part of a Ray cluster for `pnpm train … trainer.pool=ray`, in the foreground; Ctrl-C ends it.
#
#   examples/agent/start_ray.sh head                        on the first machine
#   examples/agent/start_ray.sh worker 192.0.2.10:6379      on each other machine, with the head's address
#
# Needs `ray` (pip install "ray[client]==2.60.0") on PATH. What follows is passed to `ray start`: --num-cpus 8 --num-gpus 1
# --resources '{"big": 1}'. PORT (6379) and CLIENT_PORT (10001) are the head's ports.
#
# Whoever reaches a Ray cluster's ports runs code on it. The cluster therefore asks for a token: ~/.ray/auth_token, made here by
# the head where there is none. Copy that file to every machine of the cluster, and to the one that trains. Keep the ports inside
# a network that you trust all the same: nothing is encrypted.
set -eu

usage() {
  sed -n '2,5p' "$0" >&2
  exit 2
}

# gRPC's fork handlers break, at times, the process that Ray forks for a session (ray-project/ray#60316).
export GRPC_ENABLE_FORK_SUPPORT=0
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
export RAY_USAGE_STATS_ENABLED="${RAY_USAGE_STATS_ENABLED:-0}"
token="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"

role="${1:-}"
[ $# -gt 0 ] && shift
case "$role" in
  head)
    if [ "$RAY_AUTH_MODE" = token ] && [ -z "${RAY_AUTH_TOKEN:-}" ] && [ ! -s "$token" ]; then
      mkdir -p "$(dirname "$token")"
      (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$token")
      echo "made the cluster's token: $token"
    fi
    [ "$RAY_AUTH_MODE" != token ] || echo "where you train: export RAY_AUTH_MODE=token, and the token in ~/.ray/auth_token"
    exec ray start --block --head --port "${PORT:-6379}" --ray-client-server-port "${CLIENT_PORT:-10001}" \
      --include-dashboard false "$@"
    ;;
  worker)
    [ $# -gt 0 ] || usage
    address="$1"
    shift
    if [ "$RAY_AUTH_MODE" = token ] && [ -z "${RAY_AUTH_TOKEN:-}" ] && [ ! -s "$token" ]; then
      echo "$0: $token is not there: copy it from the head" >&2
      exit 2
    fi
    exec ray start --block --address "$address" "$@"
    ;;
  *)
    usage
    ;;
esac
