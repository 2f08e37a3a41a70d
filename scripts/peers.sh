#!/usr/bin/env bash
# Installs the real parts that the tests and the quick start talk to, where apt is there and may be used; else it
# names what is left out and why.
set -u
missing=()
what=${1:-tests}
need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing+=("$2"); }
need swtpm swtpm
need swtpm_setup swtpm-tools
if [ "$what" != quickstart ]; then
need tpm2_print tpm2-tools
need ssh openssh-client
need sshd openssh-server
need ip iproute2
need gcc gcc
[ -e /usr/include/openssl/evp.h ] || missing+=(libssl-dev)
need mariadbd mariadb-server
need psql postgresql-client
[ -n "$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ] || missing+=(postgresql)
need pgbouncer pgbouncer
need mysqlslap mariadb-client
need redis-server redis-server
need redis-benchmark redis-tools
need wine wine
need x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64
need pgcli pgcli
need etcd etcd-server
need java default-jdk-headless
need node nodejs
need npm npm
[ -e /usr/lib/python3/dist-packages/pymysql ] || missing+=(python3-pymysql)
[ -e /usr/share/java/postgresql.jar ] || missing+=(libpostgresql-jdbc-java)
[ -e /usr/share/java/mariadb-java-client.jar ] || missing+=(libmariadb-java)
fi

# Clients that are no packages of Debian's: node-postgres and mongosh.
clients() {
  [ "$what" = quickstart ] && return 0
  "$(dirname "$0")"/kube.sh || return 1
  dir=$(dirname "$0")/../test/clients
  [ -x "$dir/node_modules/.bin/mongosh" ] && return 0
  echo "installing the clients of test/clients"
  npm ci --prefix "$dir" --ignore-scripts --omit=optional --no-audit --no-fund --silent >&2
}

[ ${#missing[@]} -eq 0 ] && { clients; exit; }
sudo=""
if [ "$(id -u)" != 0 ]; then
  if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then sudo="sudo -n"; else sudo="no"; fi
fi
if command -v apt-get >/dev/null 2>&1 && [ "$sudo" != no ]; then
  echo "installing ${missing[*]}"
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null 2>&1
  if $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
    for p in "${missing[@]}"; do # the tests start servers of their own; Debian starts one with the package
      case $p in postgresql | pgbouncer) $sudo service "$p" stop >/dev/null 2>&1 ;; esac
    done
    clients
    exit
  fi
  echo "apt-get could not install ${missing[*]}" >&2
else
  echo "not installed, and this user may not install: ${missing[*]}" >&2
fi
for p in "${missing[@]}"; do
  case $p in
    swtpm | swtpm-tools) echo "left out without $p: every test that needs a TPM; the quick start uses a software key" >&2 ;;
    tpm2-tools) echo "left out without $p: the stranger's check of TPM statements" >&2 ;;
    openssh-*) echo "left out without $p: stock OpenSSH against the node" >&2 ;;
    iproute2) echo "left out without $p: tests with network namespaces" >&2 ;;
    wine | gcc-mingw-*) echo "left out without $p: tsh.exe under wine" >&2 ;;
    mariadb-*) echo "left out without $p: the door to MySQL and MariaDB" >&2 ;;
    postgresql*) echo "left out without $p: the door to PostgreSQL" >&2 ;;
    pgbouncer) echo "left out without $p: what the bench measures beside" >&2 ;;
    redis-*) echo "left out without $p: the door to Redis" >&2 ;;
    libssl-dev) echo "left out without $p: the Secure Enclave's tests" >&2 ;;
    gcc) echo "left out without $p: the race detector, the Secure Enclave's tests" >&2 ;;
  esac
done
[ -n "${REQUIRE_PEERS:-}" ] && exit 1
exit 0
