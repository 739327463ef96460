package selftest

import (
	"slices"
	"strings"

	"carrel/internal/jail"
	"carrel/internal/jail/attack"
)

// judge compares what a row came to inside with what its control came to outside.
// A nil control was not tried; a nil inside left no result.
func judge(r attack.Row, outside, inside *attack.Result, lost []string) Verdict {
	v := Verdict{
		ID: r.ID, Group: r.Group, Tier: r.Tier, Title: r.Title, StoppedBy: r.StoppedBy,
		Result: NotApplicable, Control: controlFailed,
	}
	if outside != nil && outside.Succeeded {
		v.Control = controlSucceeded
	}
	absent := outside != nil && outside.Absent
	switch {
	case inside == nil && !absent:
		v.Result, v.Detail = Broken, "ended its process without a result"
	case inside != nil && inside.Succeeded:
		v.Result, v.Detail = Broken, "succeeded, though "+strings.Join(r.StoppedBy, ", ")+" should stop it"
	case outside == nil:
		v.Detail = "its control needs " + string(r.Control)
	case absent:
		v.Detail = "this machine has not got it: " + outside.Error
	case !outside.Succeeded:
		v.Detail, v.Unproven = "the control failed as well: "+outside.Error, true
	default:
		v.Result, v.Detail = Held, inside.Error
	}
	v.Documented = v.Result == Broken && BreaksWithout(r, lost)
	return v
}

// lost is what does not hold in a sandbox: layers it is started without, and rules
// that this kernel's Landlock is too old for.
func (o *Options) lost() []string {
	return slices.Concat(o.Without, jail.LandlockLacks(jail.LandlockABI()))
}

// BreaksWithout reports whether nothing that stops this row is left without these
// layers, or rules ("layer:rule").
func BreaksWithout(r attack.Row, lost []string) bool {
	isLost := func(by string) bool {
		layer, _, _ := strings.Cut(by, ":")
		switch {
		case layer == jail.LayerHidepid:
			return false // without it there is no /proc at all that could show anything
		case by == attack.RuleInotify, by == attack.RuleFastOpen:
			return slices.Contains(lost, jail.LayerHidepid) // they are set in the sandbox's own /proc
		default:
			return slices.Contains(lost, layer) || slices.Contains(lost, by)
		}
	}
	return !slices.ContainsFunc(r.StoppedBy, func(by string) bool {
		return !slices.ContainsFunc(strings.Split(by, "+"), isLost)
	})
}
