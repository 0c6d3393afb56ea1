package kube

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// Failure is an error of a run, in words for people.
type Failure struct {
	err    error
	status int
}

func (f *Failure) Error() string { return f.err.Error() }
func (f *Failure) Unwrap() error { return f.err }

// ExitStatus returns 1 for what was refused or failed, 2 for a request that is
// wrong in itself.
func (f *Failure) ExitStatus() int { return f.status }

func failed(format string, args ...any) *Failure {
	return &Failure{err: fmt.Errorf(format, args...), status: 1}
}

// wrong is a request that no cluster could carry out.
func wrong(format string, args ...any) *Failure {
	return &Failure{err: fmt.Errorf(format, args...), status: 2}
}

// explain turns an answer of the API server into an error that says what to do.
// doing is what was tried, such as "create chaosexperiments".
func (c *command) explain(doing string, err error) error {
	var done *Failure
	var unreachable *url.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &done):
		return err
	case meta.IsNoMatchError(err):
		return failed("this cluster does not have Mooring's resources (%s): install them with `kubectl apply -k deploy/crds`", v1alpha1.GroupVersion())
	case apierrors.IsForbidden(err):
		return failed("%s: %w; %s", doing, err, c.remedy(err))
	case apierrors.IsUnauthorized(err):
		return failed("%s: the API server does not know you; log in, or choose another --context", doing)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return wrong("%s: %w", doing, err)
	case apierrors.IsAlreadyExists(err):
		return failed("%s: %w; choose another name", doing, err)
	case errors.Is(err, context.DeadlineExceeded):
		return failed("%s: the API server did not answer within %v", doing, c.request)
	case errors.As(err, &unreachable):
		return failed("%s: the API server does not answer: %w", doing, unreachable.Err)
	}
	return failed("%s: %w", doing, err)
}

// remedy says which role has what was refused.
func (c *command) remedy(err error) string {
	role, where := "mooring-view", "the databases' namespace"
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil {
		switch d := status.Status().Details; {
		case d.Group != v1alpha1.GroupName:
			role, where = "mooring-doctor", c.system
		case c.writing && d.Kind == "chaosexperiments":
			role = "mooring-chaos"
		case c.writing:
			role = "mooring-operator"
		}
	}
	return fmt.Sprintf("the ClusterRole %s has this right, by a RoleBinding in %s", role, where)
}
