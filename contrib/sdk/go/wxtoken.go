// Package wxtoken gives Go SDKs the token of `wxtoken serve`. It needs no AppSecret, and only the standard library.
package wxtoken

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Source gets tokens from wxtoken. It implements silenceper/wechat's credential.AccessTokenHandle.
type Source struct {
	URL string // http://127.0.0.1:7200/token, followed by /ACCOUNT if there are several
	Key string // the key that `wxtoken key` printed

	mu       sync.Mutex
	token    string
	previous string
	asked    time.Time
	expires  time.Time
}

var client = &http.Client{Timeout: 10 * time.Second}

// GetAccessToken returns the token to use now. It asks wxtoken once a minute, as WeChat advises. While wxtoken does not
// answer, the last token is used until it expires.
func (s *Source) GetAccessToken() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.asked) < time.Minute {
		return s.token, nil
	}
	if err := s.ask(http.MethodGet, nil); err != nil && time.Now().After(s.expires) {
		return "", err
	}
	return s.token, nil
}

// Rejected reports that WeChat rejected this token (40001, 40014, 42001), and returns the token to use from now on. Transport
// calls it. Another token, such as a user's, is returned as it is.
func (s *Source) Rejected(token string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch token {
	case s.token:
	case s.previous:
		return s.token, nil // Another goroutine has replaced it already.
	default:
		return token, nil
	}
	body, err := json.Marshal(map[string]string{"rejected": token})
	if err == nil {
		err = s.ask(http.MethodPost, body)
	}
	return s.token, err
}

func (s *Source) ask(method string, body []byte) error {
	request, err := http.NewRequest(method, s.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+s.Key)
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("wxtoken: %s: %s", response.Status, answer)
	}
	var handed struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	if err := json.Unmarshal(answer, &handed); err != nil {
		return err
	}
	if handed.AccessToken != s.token {
		s.token, s.previous = handed.AccessToken, s.token
	}
	s.asked = time.Now()
	s.expires = s.asked.Add(time.Duration(handed.ExpiresIn) * time.Second)
	return nil
}

// Transport makes an SDK's API calls. When WeChat rejects the token of one, it reports that to wxtoken and makes the call once
// more with the token to use now.
type Transport struct {
	Source *Source
	Base   http.RoundTripper // http.DefaultTransport if it is nil
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	base := t.Base
	if base == nil {
		base = http.DefaultTransport
	}
	response, err := base.RoundTrip(request)
	token := request.URL.Query().Get("access_token")
	if err != nil || token == "" || !rejectsToken(response) {
		return response, err
	}
	current, err := t.Source.Rejected(token)
	hasBody := request.Body != nil && request.Body != http.NoBody
	if err != nil || current == token || hasBody && request.GetBody == nil {
		return response, nil // The next call takes the current token.
	}
	again := request.Clone(request.Context())
	again.URL.RawQuery = strings.Replace(request.URL.RawQuery,
		"access_token="+url.QueryEscape(token), "access_token="+url.QueryEscape(current), 1)
	if hasBody {
		if again.Body, err = request.GetBody(); err != nil {
			return response, nil
		}
	}
	response.Body.Close()
	return base.RoundTrip(again)
}

// largestError is the size of the largest answer that can be an error of WeChat's.
const largestError = 4096

// rejectsToken tells whether the answer says so, and leaves its body to be read again.
func rejectsToken(response *http.Response) bool {
	head, err := io.ReadAll(io.LimitReader(response.Body, largestError))
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), response.Body), response.Body}
	var answer struct {
		Errcode int `json:"errcode"`
	}
	if err != nil || json.Unmarshal(head, &answer) != nil {
		return false
	}
	switch answer.Errcode {
	case 40001, 40014, 42001:
		return true
	}
	return false
}
