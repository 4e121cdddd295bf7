#!/bin/sh
# Shows the whole way once: two databases with data, a repository on S3, a
# snapshot with its copies, the list. It can be run again and again; the
# environment is that of `go run ./testdata/cluster env`.
set -eu
here=$(dirname "$0")

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }
[ -t 1 ] || say() { printf '\n$ %s\n' "$*"; "$@"; }

kubectl apply -f "$here/demo.yaml"
kubectl create namespace backsnap --dry-run=client -o yaml | kubectl apply -f -
kubectl create secret generic main -n backsnap --dry-run=client -o yaml \
	--from-literal=RESTIC_REPOSITORY=s3:http://s3.backup-storage.svc:9000/demo \
	--from-literal=RESTIC_PASSWORD=demo-repository \
	--from-literal=AWS_ACCESS_KEY_ID="$BACKSNAP_CLUSTER_S3_ACCESS_KEY" \
	--from-literal=AWS_SECRET_ACCESS_KEY="$BACKSNAP_CLUSTER_S3_SECRET_KEY" | kubectl apply -f -
kubectl label --overwrite secret main -n backsnap backsnap.sh/repository=main
kubectl rollout status -n demo statefulset/postgres --timeout=5m
kubectl rollout status -n demo statefulset/mariadb --timeout=5m

kubectl exec -n demo postgres-0 -- psql -qXU postgres -d shop -c '
	create table if not exists orders (id serial primary key, what text);
	insert into orders (what) select md5(i::text) from generate_series(1, 50000) i;'
# shellcheck disable=SC2016 # the container's own shell expands it
kubectl exec -n demo mariadb-0 -- sh -c 'MYSQL_PWD=$MARIADB_ROOT_PASSWORD mariadb -D shop -e "
	create table if not exists orders (id int auto_increment primary key, what char(32));
	insert into orders (what) select md5(seq) from seq_1_to_50000"'

say kubectl backsnap repo init main
say kubectl backsnap repo list
say kubectl backsnap snapshot -n demo --retain calendar
say kubectl backsnap list -n demo
