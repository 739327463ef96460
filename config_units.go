package carrel

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes.
type Size int64

// sizeUnits returns the units of sizes, the largest first; the binary ones
// (IEC 80000-13) before the decimal ones.
func sizeUnits() []struct {
	name  string
	bytes int64
} {
	return []struct {
		name  string
		bytes int64
	}{
		{"TiB", 1 << 40},
		{"GiB", 1 << 30},
		{"MiB", 1 << 20},
		{"KiB", 1 << 10},
		{"TB", 1e12},
		{"GB", 1e9},
		{"MB", 1e6},
		{"kB", 1e3},
		{"B", 1},
	}
}

// UnmarshalText reads a whole number of bytes, or one with a unit: 512MiB,
// 1GiB, 2TB. Upper and lower case are alike.
func (s *Size) UnmarshalText(text []byte) error {
	const form = "must be a whole number of bytes, or one with a unit: 1048576, 512MiB, 1GiB"
	digits := strings.TrimRight(string(text), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	name := strings.TrimSpace(string(text[len(digits):]))
	n, err := strconv.ParseUint(digits, 10, 63)
	if errors.Is(err, strconv.ErrRange) {
		return errors.New("too large")
	} else if err != nil {
		return errors.New(form)
	}
	factor := int64(1)
	if name != "" {
		factor = 0
		for _, unit := range sizeUnits() {
			if strings.EqualFold(name, unit.name) {
				factor = unit.bytes
			}
		}
	}
	switch {
	case factor == 0:
		return errors.New(form)
	case n > uint64(math.MaxInt64/factor):
		return errors.New("too large")
	}
	*s = Size(int64(n) * factor)
	return nil
}

// String gives the size in the largest binary unit that holds it exactly:
// 512MiB, 1500B.
func (s Size) String() string {
	if s == 0 {
		return "0B"
	}
	for _, unit := range sizeUnits()[:4] {
		if int64(s)%unit.bytes == 0 {
			return strconv.FormatInt(int64(s)/unit.bytes, 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// MarshalText implements [encoding.TextMarshaler].
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UIDRange is a range of host uids: First and the Count-1 after it.
type UIDRange struct {
	First, Count uint32
}

// The limits of uids that sandboxes may have. Below minUID live the system's
// own (login.defs: UID_MIN); two ids have a meaning of their own, nobody, which
// the kernel shows for every unmapped owner (overflowuid), and the 16-bit -1;
// and 2^32-1 is -1, no uid at all.
const (
	minUID    = 1000
	nobodyUID = 65534
	minus1UID = 65535
	maxUID    = math.MaxUint32 - 1
)

// uidRangeAllowed says in words what check asks.
const uidRangeAllowed = "first:count within 1000..4294967294, without 65534 and 65535"

// UnmarshalText reads "first:count": 200000:65536.
func (r *UIDRange) UnmarshalText(text []byte) error {
	first, count, found := strings.Cut(string(text), ":")
	f, errFirst := strconv.ParseUint(first, 10, 32)
	c, errCount := strconv.ParseUint(count, 10, 32)
	if !found || errFirst != nil || errCount != nil {
		return errors.New("must be first:count, such as 200000:65536")
	}
	read := UIDRange{First: uint32(f), Count: uint32(c)}
	if err := read.check(); err != nil {
		return err
	}
	*r = read
	return nil
}

func (r UIDRange) check() error {
	last := uint64(r.First) + uint64(r.Count) - 1
	switch {
	case r.Count == 0:
		return errors.New("the count must be at least 1")
	case r.First < minUID:
		return fmt.Errorf("uids below %d belong to the system", minUID)
	case last > maxUID:
		return fmt.Errorf("ends at %d, past the last uid", last)
	case r.First <= minus1UID && last >= nobodyUID:
		return fmt.Errorf("contains %d or %d, which are no user's", nobodyUID, minus1UID)
	}
	return nil
}

// String gives "first:count".
func (r UIDRange) String() string { return fmt.Sprintf("%d:%d", r.First, r.Count) }

// MarshalText implements [encoding.TextMarshaler].
func (r UIDRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// RateLimit is a number of requests in a second, a minute or an hour. The zero value
// is no limit.
type RateLimit struct {
	Requests int
	Per      time.Duration
}

// maxRate is far above what a daemon can answer.
const maxRate = 1_000_000

// rateLimitAllowed says in words what check asks.
const rateLimitAllowed = "N/s, N/m or N/h with N from 1 to 1000000"

// UnmarshalText reads "N/s", "N/m" or "N/h": 100/s.
func (r *RateLimit) UnmarshalText(text []byte) error {
	number, unit, _ := strings.Cut(string(text), "/")
	n, err := strconv.Atoi(number)
	per := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	read := RateLimit{Requests: n, Per: per}
	if err != nil || read.check() != nil || n == 0 {
		return errors.New("must be a number of requests and a time, such as 100/s")
	}
	*r = read
	return nil
}

func (r RateLimit) check() error {
	isUnit := r.Per == time.Second || r.Per == time.Minute || r.Per == time.Hour
	if r != (RateLimit{}) && (r.Requests < 1 || r.Requests > maxRate || !isUnit) {
		return errors.New("out of range")
	}
	return nil
}

// String gives "N/s", "N/m" or "N/h"; "" where there is no limit.
func (r RateLimit) String() string {
	switch {
	case r.Requests == 0:
		return ""
	case r.Per == time.Second:
		return strconv.Itoa(r.Requests) + "/s"
	case r.Per == time.Minute:
		return strconv.Itoa(r.Requests) + "/m"
	default:
		return strconv.Itoa(r.Requests) + "/h"
	}
}

// MarshalText implements [encoding.TextMarshaler].
func (r RateLimit) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
