// Makes API calls as silenceper/wechat does, with the recipe in contrib/sdk/go.
//
// For each line `call` on stdin it makes an API call, and prints `ok`, or `error` and the errcode or the reason. `foreign` is a
// call with a token that is not wxtoken's.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"recipe/wxtoken"
)

func main() {
	source := &wxtoken.Source{URL: os.Getenv("WXTOKEN_URL") + "/token", Key: os.Getenv("WXTOKEN_KEY")}
	http.DefaultClient.Transport = &wxtoken.Transport{Source: source}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		token, err := source.GetAccessToken()
		if lines.Text() == "foreign" {
			token = "foreign"
		}
		if err == nil {
			err = call(token)
		}
		if err != nil {
			fmt.Println("error", err)
		} else {
			fmt.Println("ok")
		}
	}
}

func call(token string) error {
	query := url.Values{"access_token": {token}}
	response, err := http.Get(os.Getenv("WECHAT_API") + "/cgi-bin/getcallbackip?" + query.Encode())
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct {
		Errcode int      `json:"errcode"`
		IPList  []string `json:"ip_list"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return err
	}
	if len(answer.IPList) == 0 {
		return fmt.Errorf("%d", answer.Errcode)
	}
	return nil
}
