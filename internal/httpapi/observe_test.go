package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEachRequestIsToldOfByItsRoute(t *testing.T) {
	var told []Answered
	h := New(newFake(), Options{Answered: func(_ context.Context, a Answered) { told = append(told, a) }})
	body := `{"user_id":"ana","message":"m"}`
	ask(t, h, http.MethodPost, "/v1/execute", body, "Prefer: respond-async")
	ask(t, h, http.MethodHead, "/v1/runs", "")
	ask(t, h, "EVIL", "/nowhere/ana", "")
	ask(t, h, http.MethodPut, "/v1/runs", "")
	want := []Answered{
		{Method: "POST", Pattern: "/v1/execute", Status: 202, ReceivedBytes: int64(len(body))},
		{Method: "HEAD", Pattern: "/v1/runs", Status: 200},
		{Method: "EVIL", Status: 404},
		{Method: "PUT", Status: 405},
	}
	for i := range told {
		if told[i].Took < 0 || told[i].Began.IsZero() || told[i].SentBytes == 0 {
			t.Errorf("%+v", told[i])
		}
		told[i].Took, told[i].Began, told[i].SentBytes = 0, time.Time{}, 0
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error(diff)
	}
}

func TestEachRefusedSignInHasItsReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(map[SignInRefusal]int)
		h := New(newFake(), Options{
			Identify: identify, RateLimit: Rate{Requests: 1, Per: time.Hour},
			SignInRefused: func(r SignInRefusal) { told[r]++ },
		})
		from := func(key string) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/runs", nil)
			if key != "" {
				r.Header.Set("Authorization", "Bearer "+key)
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
		from("")
		from("key-ana")
		from("key-ana")
		for i := range 12 {
			from("wrong-" + string(rune('a'+i)))
		}
		want := map[SignInRefusal]int{NoKey: 1, RateLimited: 1, WrongKey: 10, TooManyWrongKeys: 2}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Error(diff)
		}
	})
}
