// Package wxtoken gives Go SDKs the token of `wxtoken serve`. It needs no AppSecret, and only the standard library.
package wxtoken

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Source gets tokens from wxtoken. It implements silenceper/wechat's credential.AccessTokenHandle.
type Source struct {
	URL string // http://127.0.0.1:7200/token, followed by /ACCOUNT if there are several
	Key string // the key that `wxtoken key` printed

	mu      sync.Mutex
	token   string
	asked   time.Time
	expires time.Time
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

// Rejected reports that WeChat rejected this token (40001, 40014, 42001), and returns the token to use from now on.
func (s *Source) Rejected(token string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token != s.token {
		return s.token, nil // Another goroutine has replaced it already.
	}
	body, err := json.Marshal(map[string]string{"rejected": token})
	if err == nil {
		err = s.ask(http.MethodPost, body)
	}
	return s.token, err
}

// HashMap is for PowerWeChat's GetCustomToken, which sets refresh when WeChat rejected its token. GetCustomToken takes no
// error and panics if a field is missing; with an empty token WeChat at least answers 41001.
func (s *Source) HashMap(refresh bool) map[string]interface{} {
	token, err := s.GetAccessToken()
	if err == nil && refresh {
		token, _ = s.Rejected(token)
	}
	return map[string]interface{}{"access_token": token, "expires_in": 60.0}
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
	s.token, s.asked = handed.AccessToken, time.Now()
	s.expires = s.asked.Add(time.Duration(handed.ExpiresIn) * time.Second)
	return nil
}
