package kit

import (
	"fmt"
	"strings"
	"testing"
)

// Database is a database server in a StatefulSet of one pod.
type Database struct {
	Namespace, Name, Password string
	engine                    string
}

// Options bend a database.
type Options struct {
	Class    string // StorageClass; "" for the default
	Size     string // of the volume; "" for 512Mi
	Password string
	Replicas int // 0 is 1
}

// Pod is the database's first pod.
func (d Database) Pod() string { return d.Name + "-0" }

// Claim is the claim of that pod.
func (d Database) Claim() string { return "data-" + d.Name + "-0" }

// Postgres starts a PostgreSQL 15 with a database called shop and waits until
// it answers.
func Postgres(t testing.TB, namespace, name string, o Options) Database {
	t.Helper()
	d := Database{Namespace: namespace, Name: name, Password: o.Password, engine: "postgres"}
	d.start(t, o, "docker.io/library/postgres:15", 5432,
		"POSTGRES_PASSWORD", map[string]string{"POSTGRES_DB": "shop", "PGDATA": "/var/lib/postgresql/data/pgdata", "POSTGRES_INITDB_ARGS": "--no-sync"},
		`psql -XtAU postgres -h 127.0.0.1 -d shop -c 'select 1' || pg_isready -h 127.0.0.1`)
	return d
}

// MariaDB starts a MariaDB 10.11 with a database called shop and waits until
// it answers.
func MariaDB(t testing.TB, namespace, name string, o Options) Database {
	t.Helper()
	d := Database{Namespace: namespace, Name: name, Password: o.Password, engine: "mariadb"}
	d.start(t, o, "docker.io/library/mariadb:10.11", 3306,
		"MARIADB_ROOT_PASSWORD", map[string]string{"MARIADB_DATABASE": "shop", "MARIADB_INITDB_SKIP_TZINFO": "1"}, // to load them keeps a core busy for seconds
		`MYSQL_PWD=$MARIADB_ROOT_PASSWORD mariadb -h 127.0.0.1 -D shop -e 'select 1'`)
	return d
}

// starting has a place for each database that starts: what more of them write
// keeps all from being there in time.
var starting = make(chan struct{}, 2)

func (d Database) start(t testing.TB, o Options, image string, port int, passwordVariable string, env map[string]string, ready string) {
	t.Helper()
	variables := ""
	for name, value := range env {
		variables += fmt.Sprintf("            - {name: %s, value: %s}\n", name, YAML(value))
	}
	class := ""
	if o.Class != "" {
		class = "\n        storageClassName: " + o.Class
	}
	size, replicas := o.Size, max(o.Replicas, 1)
	if size == "" {
		size = "512Mi"
	}
	starting <- struct{}{}
	defer func() { <-starting }()
	Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: %[1]s, namespace: %[2]s}
stringData: {password: %[3]s}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  serviceName: %[1]s
  replicas: %[11]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: database
          image: %[4]s
          imagePullPolicy: IfNotPresent
          ports: [{containerPort: %[5]d}]
          env:
            - {name: %[7]s, valueFrom: {secretKeyRef: {name: %[1]s, key: password}}}
%[8]s          startupProbe: {exec: {command: [sh, -c, %[9]s]}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 3600}
          readinessProbe: {exec: {command: [sh, -c, %[9]s]}, periodSeconds: 5, timeoutSeconds: 5}
          volumeMounts: [{name: data, mountPath: %[6]s}]
          resources: {requests: {cpu: 100m}} # as much as a mover has
  volumeClaimTemplates:
    - metadata: {name: data}
      spec:
        accessModes: [ReadWriteOnce]%[10]s
        resources: {requests: {storage: %[12]s}}
`, d.Name, d.Namespace, YAML(d.password()), image, port, d.Mount(), passwordVariable, variables, YAML(ready), class, replicas, size), "apply", "-f", "-")
	Kubectl(t, "rollout", "status", "-n", d.Namespace, "statefulset/"+d.Name, "--timeout", Patience.String())
}

func (d Database) password() string {
	if d.Password == "" {
		return "test"
	}
	return d.Password
}

// SQL runs statements on database shop and returns what they print, one row a
// line, columns by tabs or bars.
func (d Database) SQL(t testing.TB, statements string) string {
	t.Helper()
	return strings.TrimSpace(Apply(t, statements, "exec", "-i", "-n", d.Namespace, d.Pod(), "--", "sh", "-c", d.client()))
}

// Mount is where the server's container has the volume.
func (d Database) Mount() string {
	if d.engine == "postgres" {
		return "/var/lib/postgresql/data"
	}
	return "/var/lib/mysql"
}

func (d Database) client() string {
	if d.engine == "postgres" {
		return `exec psql -XqtA -v ON_ERROR_STOP=1 -U postgres -d shop`
	}
	return `MYSQL_PWD=$MARIADB_ROOT_PASSWORD exec mariadb -NB --unbuffered -D shop`
}
