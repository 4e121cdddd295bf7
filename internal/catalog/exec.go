package catalog

import "fmt"

// ContainerRef names one running container.
type ContainerRef struct {
	Namespace, Pod, Container string
}

// String is `pod shop/mysql-0, container mysql`.
func (c ContainerRef) String() string {
	return fmt.Sprintf("pod %s/%s, container %s", c.Namespace, c.Pod, c.Container)
}

// ExitError is a command in a container that ended with a non-zero status.
type ExitError struct {
	Code int
}

// Error is `exit N`.
func (e *ExitError) Error() string { return fmt.Sprintf("exit %d", e.Code) }
