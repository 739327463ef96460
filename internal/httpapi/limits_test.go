package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"carrel/protocol"
)

func TestEachCallerHasItsOwnRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(newFake(), Options{Identify: identify, RateLimit: Rate{Requests: 3, Per: time.Minute}})
		get := func(key string) *httptest.ResponseRecorder {
			return ask(t, h, http.MethodGet, "/v1/runs", "", bearerOf(key))
		}
		for range 3 {
			if w := get("key-ana"); w.Code != 200 {
				t.Fatalf("within the limit: %d %s", w.Code, w.Body)
			}
		}
		w := get("key-ana")
		if p := problem(t, w); p.Status != 429 || p.Code != protocol.CodeRateLimited || p.RetryAfter <= 19 || p.RetryAfter > 20 || w.Header().Get("Retry-After") != "20" {
			t.Errorf("above it: %+v, Retry-After %q", p, w.Header().Get("Retry-After"))
		}
		if w := get("key-bob"); w.Code != 200 {
			t.Errorf("another caller: %d", w.Code)
		}
		if w := ask(t, h, http.MethodGet, "/healthz", ""); w.Code != 200 {
			t.Errorf("a probe: %d", w.Code)
		}
		pass(20 * time.Second)
		if first, second := get("key-ana"), get("key-ana"); first.Code != 200 || second.Code != 429 {
			t.Errorf("a token later: %d, %d", first.Code, second.Code)
		}
	})
}

func TestGuessingIsSlowAndLocksOutNobodyWhoHasAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(newFake(), Options{Identify: identify})
		from := func(address, key string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/runs", nil)
			r.RemoteAddr = address
			r.Header.Set("Authorization", "Bearer "+key)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		const attacker, proxy = "192.0.2.1:1000", "192.0.2.9:1000"
		from(proxy, "key-ana")
		for i := range 1000 { // a key of yesterday, again and again
			if w := from(attacker, "key-old"); w.Code != 401 {
				t.Fatalf("try %d of the same key: %d", i, w.Code)
			}
		}
		refused := 0
		for i := range 100 {
			if from(attacker, "guess"+strconv.Itoa(i)).Code == 429 {
				refused++
			}
			from(proxy, "guess"+strconv.Itoa(i))
		}
		if refused != 100-guesses.Requests+1 { // key-old was one
			t.Errorf("%d of 100 guesses are refused", refused)
		}
		// No answer tells the right key from a wrong one now, from whichever port.
		right, wrong := from("192.0.2.1:2000", "key-bob"), from(attacker, "key-bxb")
		if right.Code != 429 || right.Body.String() != wrong.Body.String() || right.Header().Get("Retry-After") != "6" {
			t.Errorf("the right key: %d %s, a wrong one: %s", right.Code, right.Body, wrong.Body)
		}
		if w := from("192.0.2.2:1", "key-bob"); w.Code != 200 {
			t.Errorf("from another address: %d", w.Code)
		}
		if w := from(proxy, "key-ana"); w.Code != 200 {
			t.Errorf("a key that has signed in from there before: %d", w.Code)
		}
		if w := from(proxy, "key-bob"); w.Code != 429 {
			t.Errorf("one that has not: %d", w.Code)
		}
		pass(6 * time.Second)
		if w := from(attacker, "key-bob"); w.Code != 200 {
			t.Errorf("after the wait: %d", w.Code)
		}
	})
}

func TestWhatIsRememberedOfAddressesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAttempts()
		for i := range 3 * maxAddresses {
			address := "a" + strconv.Itoa(i)
			for j := range 2 * maxTried {
				a.wrong(address, address+"-"+strconv.Itoa(j))
			}
			a.right("b"+strconv.Itoa(i), "caller")
		}
		if n := len(a.buckets.held); n > maxAddresses {
			t.Errorf("%d addresses are held", n)
		}
		if n := len(a.acquainted); n > maxAcquainted {
			t.Errorf("%d good pairs are held", n)
		}
		for _, of := range a.buckets.held {
			if len(of.tried) > maxTried {
				t.Fatalf("%d tried keys are held", len(of.tried))
			}
		}
		// Those without room share one bucket, so that many addresses guess no faster,
		// not even with the right key.
		if wait, _ := a.wrong("new", "key"); wait == 0 {
			t.Error("an address without room may guess")
		}
		if wait := a.right("new", "another"); wait == 0 {
			t.Error("a right guess from an address without room is answered")
		}
		pass(time.Hour)
		if wait, _ := a.wrong("new", "key"); wait != 0 || len(a.buckets.held) != 1 {
			t.Errorf("an hour later: wait %s, %d addresses", wait, len(a.buckets.held))
		}
	})
}

func TestOriginIsAnAddressOrItsNetwork(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1",
		"[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64", "[fe80::1%eth0]:80": "fe80::/64",
		"": "", "@": "", "192.0.2.1": "",
	} {
		if got := origin(remote); got != want {
			t.Errorf("%q comes from %q, want %q", remote, got, want)
		}
	}
}
