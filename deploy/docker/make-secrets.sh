#!/bin/sh
# Make the files of compose.yaml's secrets where they are missing; those that exist are left as they are.
# Usage: sh deploy/docker/make-secrets.sh [FOLDER]      (default: deploy/secrets beside this script's folder)
set -eu
folder=${1:-$(dirname "$0")/../secrets}
umask 077
mkdir -p "$folder"
# Nobody else may enter the folder. The files in it are readable, because Docker shows them to containers whose users
# are not this machine's.
chmod 700 "$folder"

random() { head -c 48 /dev/urandom | base64 | tr -dc 'A-Za-z0-9' | cut -c1-40; }
keep() { # NAME: what comes on standard input, unless there is one
  if [ ! -e "$folder/$1" ]; then
    cat > "$folder/.$1" && chmod 444 "$folder/.$1" && mv "$folder/.$1" "$folder/$1"
  fi
}

random | keep secret_key
head -c 32 /dev/urandom | base64 | tr '+/' '-_' | keep encryption_keys
random | keep postgres_password
random | keep redis_password
random | keep grafana_password
echo "postgresql://gpubroker:$(cat "$folder/postgres_password")@postgres:5432/gpubroker" | keep database_url
echo "redis://:$(cat "$folder/redis_password")@redis:6379/0" | keep redis_url
# Your accounts: write the key into the file. Empty means none.
for name in vastai_api_key tensordock_api_token lowcodeapi_api_token; do keep "$name" < /dev/null; done
echo "Secrets are in $folder; keep a copy of encryption_keys with your backups."
