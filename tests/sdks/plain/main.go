// Makes API calls with Go's net/http, as SDKs do: at WeChat's own address, with a token that it asks for once. It is no SDK.
//
// For each line `call` on stdin it makes an API call, and prints `ok`, or `error` and the errcode.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
)

const api = "https://api.weixin.qq.com/cgi-bin/"

type answer struct {
	Errcode     int      `json:"errcode"`
	AccessToken string   `json:"access_token"`
	IPList      []string `json:"ip_list"`
}

func get(path string, query url.Values) (answer, error) {
	var got answer
	response, err := http.Get(api + path + "?" + query.Encode())
	if err != nil {
		// Without the URL, which holds the key.
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return got, err
	}
	defer response.Body.Close()
	err = json.NewDecoder(response.Body).Decode(&got)
	if err == nil && got.Errcode != 0 {
		err = fmt.Errorf("%d", got.Errcode)
	}
	return got, err
}

func main() {
	token := ""
	call := func() error {
		if token == "" {
			got, err := get("token", url.Values{
				"grant_type": {"client_credential"},
				"appid":      {os.Getenv("WXTOKEN_APPID")},
				"secret":     {os.Getenv("WXTOKEN_KEY")},
			})
			if err != nil {
				return err
			}
			token = got.AccessToken
		}
		got, err := get("getcallbackip", url.Values{"access_token": {token}})
		if err == nil && len(got.IPList) == 0 {
			err = errors.New("nothing")
		}
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := call(); err != nil {
			fmt.Println("error", err)
		} else {
			fmt.Println("ok")
		}
	}
}
