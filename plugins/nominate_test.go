package plugins_test

import (
	"testing"

	"github.com/backsnap/kubectl-backsnap/plugins"
)

func TestNominate(t *testing.T) {
	all, err := plugins.All()
	must(t, err)
	type answer struct {
		plugin, reason string
		ok             bool
	}
	pg := []plugins.Port{{Number: 5432}}
	my := []plugins.Port{{Number: 3306}}
	for _, c := range []struct {
		name string
		c    plugins.Container
		want answer
	}{
		{"the official PostgreSQL", plugins.Container{Image: "postgres:16", Env: []string{"POSTGRES_PASSWORD"}, Ports: pg},
			answer{"postgres", "image postgres, port 5432, environment POSTGRES_PASSWORD", true}},
		{"by image alone", plugins.Container{Image: "docker.io/library/postgres"}, answer{"postgres", "image postgres", true}},
		{"by digest from a registry with a port", plugins.Container{Image: "reg.example:5000/bitnami/postgresql:15@sha256:0123"},
			answer{"postgres", "image postgresql", true}},
		{"Bitnami", plugins.Container{Image: "docker.io/bitnamilegacy/postgresql:16.2.0-debian-12-r1", Env: []string{"BITNAMI_DEBUG", "POSTGRESQL_PORT_NUMBER"},
			Ports: []plugins.Port{{Name: "tcp-postgresql", Number: 5432}}, Mounts: []string{"/bitnami/postgresql"}},
			answer{"postgres", "image postgresql, port 5432, environment POSTGRESQL_PORT_NUMBER, mount /bitnami/postgresql", true}},
		{"a wild suffix", plugins.Container{Image: "timescale/timescaledb-ha:pg16"}, answer{"postgres", "image timescaledb-ha", true}},
		{"an image of one's own, by port and environment", plugins.Container{Image: "acme/db:1", Ports: pg, Env: []string{"PGDATA"}},
			answer{"postgres", "port 5432, environment PGDATA", true}},
		{"an image of one's own, by environment and mount", plugins.Container{Image: "acme/db:1", Env: []string{"PGDATA"}, Mounts: []string{"/var/lib/postgresql/data"}},
			answer{"postgres", "environment PGDATA, mount /var/lib/postgresql/data", true}},
		{"a port by name", plugins.Container{Image: "acme/db:1", Ports: []plugins.Port{{Name: "postgres-main", Number: 15432}}, Env: []string{"PGDATA"}},
			answer{"postgres", "port 15432, environment PGDATA", true}},
		{"a port and a mount are not enough", plugins.Container{Image: "acme/proxy:1", Ports: pg, Mounts: []string{"/pgdata"}},
			answer{"", "port 5432, mount /pgdata", false}},
		{"a client has the environment alone", plugins.Container{Image: "acme/web:1", Env: []string{"POSTGRES_PASSWORD"}},
			answer{"", "environment POSTGRES_PASSWORD", false}},
		{"the exporter", plugins.Container{Image: "quay.io/prometheuscommunity/postgres-exporter:v0.15", Env: []string{"POSTGRES_PASSWORD"}},
			answer{"", "image postgres-exporter is not a database (*exporter*)", false}},
		{"the pooler", plugins.Container{Image: "bitnami/pgbouncer:1", Ports: pg, Env: []string{"POSTGRESQL_PASSWORD"}},
			answer{"", "image pgbouncer is not a database (*pgbouncer*)", false}},
		{"MySQL", plugins.Container{Image: "mysql:8.4", Env: []string{"MYSQL_ROOT_PASSWORD"}, Ports: my},
			answer{"mysql", "image mysql, port 3306, environment MYSQL_ROOT_PASSWORD", true}},
		{"MariaDB", plugins.Container{Image: "mariadb:11.4"}, answer{"mysql", "image mariadb", true}},
		{"Bitnami's MariaDB Galera", plugins.Container{Image: "bitnami/mariadb-galera:11", Mounts: []string{"/bitnami/mariadb"}},
			answer{"mysql", "image mariadb-galera, mount /bitnami/mariadb", true}},
		{"Percona", plugins.Container{Image: "percona/percona-xtradb-cluster:8.0"}, answer{"mysql", "image percona-xtradb-cluster", true}},
		{"MySQL's exporter", plugins.Container{Image: "prom/mysqld-exporter", Ports: my},
			answer{"", "image mysqld-exporter is not a database (*exporter*)", false}},
		{"the database that shows more signs", plugins.Container{Image: "mariadb", Ports: my, Env: []string{"PGDATA"}},
			answer{"mysql", "image mariadb, port 3306", true}},
		{"something else altogether", plugins.Container{Image: "nginx", Ports: []plugins.Port{{Number: 80}}}, answer{"", "", false}},
		{"a veto alone says nothing", plugins.Container{Image: "acme/backup"}, answer{"", "", false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, reason, ok := plugins.Nominate(all, c.c)
			same(t, "nomination", answer{p.Name, reason, ok}, c.want)
		})
	}
}
