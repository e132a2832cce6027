package client

import (
	"errors"
	"math/rand/v2"
	"net/url"
	"slices"
)

// endpoint is an address of the service.
type endpoint struct{ url, where string } // where: for texts, without credentials and query

// CheckURLs says what is wrong with the addresses of a service.
func CheckURLs(target string, more []string) error {
	_, err := endpoints(target, more)
	return err
}

// endpoints checks the addresses; one that is there twice is taken once.
func endpoints(target string, more []string) ([]endpoint, error) {
	all := make([]endpoint, 0, 1+len(more))
	if target != "" || len(more) == 0 {
		more = append([]string{target}, more...)
	}
	for _, s := range more {
		where, err := checkURL(s)
		if err != nil {
			return nil, err
		}
		if e := (endpoint{s, where}); !slices.Contains(all, e) {
			all = append(all, e)
		}
	}
	return all, nil
}

// checkURL returns scheme, host and path of a URL, for error texts.
func checkURL(s string) (where string, err error) {
	u, err := url.Parse(s)
	if err != nil {
		// url's own error repeats the text, secrets and all.
		return "", errors.New("typedrpc: the URL cannot be parsed")
	}
	if u.Host == "" || !slices.Contains([]string{"ws", "wss", "http", "https"}, u.Scheme) {
		// What it begins with may be a user's name and password.
		return "", errors.New("typedrpc: the URL must be ws://host/path or wss://host/path; http and https mean the same")
	}
	return u.Scheme + "://" + u.Host + u.Path, nil
}

// order is the order in which the addresses are tried.
func (d *Client) order() []endpoint {
	all := slices.Clone(d.endpoints)
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	d.mu.Lock()
	stay := d.sess != nil
	d.mu.Unlock()
	i := slices.Index(all, d.at)
	if i < 0 || !stay && !d.leave {
		return all
	}
	all = slices.Delete(all, i, i+1)
	if stay {
		return slices.Insert(all, 0, d.at)
	}
	return append(all, d.at)
}
