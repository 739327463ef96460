//go:build !linux

package cgroup

import "errors"

// machine is a host without control groups.
func machine() host { return other{} }

type other struct{}

var errNoCgroups = errors.New("control groups need Linux")

func (other) pid() int                    { return 0 }
func (other) read(string) (string, error) { return "", errNoCgroups }
func (other) writable(string) error       { return errNoCgroups }
func (other) open(string) (tree, error)   { return nil, errNoCgroups }
func (other) pin(int) (pinned, error)     { return nil, errNoCgroups }
