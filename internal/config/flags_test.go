package config

import (
	"reflect"
	"strings"
	"testing"
)

func TestFlagCA(t *testing.T) {
	for directory, want := range map[string]string{
		"letsencrypt":                              "letsencrypt https://acme-v02.api.letsencrypt.org/directory",
		"https://ca.corp.example.com/acme":         "ca.corp.example.com https://ca.corp.example.com/acme",
		"https://[2001:db8::1]:14000/dir?tenant=a": "_2001_db8__1__14000 https://[2001:db8::1]:14000/dir?tenant=a",
	} {
		ca, err := FlagCA{Directory: directory, Email: "a@corp.example.com"}.CA()
		if err != nil || ca.Name+" "+ca.Directory != want || ca.AcceptTerms || ca.Email != "a@corp.example.com" {
			t.Errorf("%s: %+v, %v", directory, ca, err)
		}
	}
	_, err := FlagCA{Directory: "http://ca.example.com", Email: "nobody", Roots: []string{"missing.pem"}}.CA()
	for _, flag := range []string{"--directory: ", "--email: ", "--roots: "} {
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+flag) {
			t.Errorf("nothing is said about %s %v", flag, err)
		}
	}
}

func TestFlagCertificate(t *testing.T) {
	for _, tt := range []struct {
		what string
		in   FlagCertificate
		want Certificate
	}{
		{"a hostname is its name", FlagCertificate{Hostnames: []string{"WWW.Corp.Example.com."}},
			Certificate{Name: "www.corp.example.com", Hostnames: []string{"www.corp.example.com"}, KeyType: DefaultKeyType}},
		{"a wildcard's name can be a file's", FlagCertificate{Hostnames: []string{"*.corp.example.com", "corp.example.com"}},
			Certificate{Name: "_.corp.example.com", Hostnames: []string{"*.corp.example.com", "corp.example.com"}, KeyType: DefaultKeyType}},
		{"later steps know the name alone", FlagCertificate{Name: "web"}, Certificate{Name: "web", KeyType: DefaultKeyType}},
		{"all is given", FlagCertificate{"web", []string{"a.corp.example.com"}, "rsa-3072", "short"},
			Certificate{Name: "web", Hostnames: []string{"a.corp.example.com"}, KeyType: "rsa-3072", Profile: "short"}},
	} {
		if got, err := tt.in.Certificate(); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v", tt.what, got, err)
		}
	}
	for what, in := range map[string]FlagCertificate{
		"a path for a name":  {Name: "../web"},
		"no name":            {},
		"not a hostname":     {Hostnames: []string{"a_b.example.com"}},
		"an unknown key":     {Name: "web", KeyType: "rsa"},
		"one hostname wrong": {Name: "web", Hostnames: []string{"a.example.com", "192.0.2.1"}},
	} {
		if got, err := in.Certificate(); err == nil {
			t.Errorf("%s: %+v", what, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	got, err := Addresses([]string{"192.0.2.1", "ns1.example.com:5353", "2001:db8::1"})
	if want := []string{"192.0.2.1:53", "ns1.example.com:5353", "[2001:db8::1]:53"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Addresses([]string{"ns1:port"}); err == nil || !strings.HasPrefix(err.Error(), "--nameserver: ") {
		t.Errorf("%v", err)
	}
}
