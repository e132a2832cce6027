package wire

import "fmt"

// BodyDepth is how deep a body of the handshake may nest, with the payload in it: as deep as
// anything is sent. What a peer reads of payloads is not its grammar's to say, and in the binary
// dialect nobody asks.
const BodyDepth = 10_000 + envelopeDepth

// ParseHello reads the body of HELLO.
func ParseHello(data []byte) (HelloBody, error) {
	var b HelloBody
	err := Object(data, BodyDepth, func(key string, value []byte) (err error) {
		switch key {
		case "attempt":
			b.Attempt, err = uintMember(key, value)
		case "client":
			b.Client, err = stringMember(key, value)
		case "token":
			b.Token, err = stringMember(key, value)
		case "received":
			b.Received, err = uintMember(key, value)
		case "credentials":
			b.Credentials = value
		case "limits":
			b.Limits, err = parseLimits(value)
		case "features":
			b.Features, err = parseFeatures(value)
		case "cache":
			b.Cache, err = stringMember(key, value)
		case "schema":
			b.Schema, err = stringMember(key, value)
		}
		return err
	})
	if err != nil {
		return HelloBody{}, fmt.Errorf("HELLO: %w", err)
	}
	return b, nil
}

// ParseWelcome reads the body of WELCOME.
func ParseWelcome(data []byte) (WelcomeBody, error) {
	var b WelcomeBody
	err := Object(data, BodyDepth, func(key string, value []byte) (err error) {
		switch key {
		case "token":
			b.Token, err = stringMember(key, value)
		case "resumed":
			var ok bool
			if b.Resumed, ok = parseBool(value); !ok {
				err = wrongType(key)
			}
		case "reason":
			b.Reason, err = stringMember(key, value)
		case "received":
			b.Received, err = uintMember(key, value)
		case "reply":
			b.Reply = value
		case "limits":
			b.Limits, err = parseLimits(value)
		case "features":
			b.Features, err = parseFeatures(value)
		case "keepalive":
			b.Keepalive, err = uintMember(key, value)
		case "grace":
			b.Grace, err = uintMember(key, value)
		case "expires":
			b.Expires, err = uintMember(key, value)
		case "cache":
			b.Cache, err = stringMember(key, value)
		case "schema":
			b.Schema, err = stringMember(key, value)
		}
		return err
	})
	if err != nil {
		return WelcomeBody{}, fmt.Errorf("WELCOME: %w", err)
	}
	return b, nil
}

// ParseAuth reads the body of AUTH.
func ParseAuth(data []byte) (AuthBody, error) {
	var b AuthBody
	err := Object(data, BodyDepth, func(key string, value []byte) error {
		if key == "credentials" {
			b.Credentials = value
		}
		return nil
	})
	if err != nil {
		return AuthBody{}, fmt.Errorf("AUTH: %w", err)
	}
	return b, nil
}

// ParseAuthOK reads the body of AUTH_OK.
func ParseAuthOK(data []byte) (AuthOKBody, error) {
	var b AuthOKBody
	err := Object(data, BodyDepth, func(key string, value []byte) (err error) {
		switch key {
		case "reply":
			b.Reply = value
		case "expires":
			b.Expires, err = uintMember(key, value)
		case "error":
			b.Error, err = parseErrorBody(value)
		}
		return err
	})
	if err != nil {
		return AuthOKBody{}, fmt.Errorf("AUTH_OK: %w", err)
	}
	return b, nil
}

// ParseGoAway reads the body of GOAWAY.
func ParseGoAway(data []byte) (GoAwayBody, error) {
	var b GoAwayBody
	err := Object(data, BodyDepth, func(key string, value []byte) (err error) {
		switch key {
		case "reason":
			b.Reason, err = stringMember(key, value)
		case "min":
			b.Min, err = uintMember(key, value)
		case "max":
			b.Max, err = uintMember(key, value)
		case "error":
			b.Error, err = parseErrorBody(value)
		}
		return err
	})
	if err != nil {
		return GoAwayBody{}, fmt.Errorf("GOAWAY: %w", err)
	}
	return b, nil
}

func parseErrorBody(data []byte) (*ErrorBody, error) {
	var b ErrorBody
	err := Object(data, BodyDepth, func(key string, value []byte) (err error) {
		switch key {
		case "code":
			var ok bool
			if b.Code, ok = parseInt(value); !ok {
				err = wrongType(key)
			}
		case "message":
			b.Message, err = stringMember(key, value)
		case "data":
			if !isNull(value) { // which many JSON writers mean by nothing
				b.Data = value
			}
		case "fault":
			b.Fault, err = stringMember(key, value)
			b.Fault = faultName(b.Fault)
		case "retryAfter":
			b.RetryAfter, err = uintMember(key, value)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &b, nil
}

func parseLimits(data []byte) (Limits, error) {
	var l Limits
	err := Object(data, 0, func(key string, value []byte) (err error) {
		switch key {
		case "message":
			l.Message, err = uintMember(key, value)
		case "calls":
			l.Calls, err = uintMember(key, value)
		case "window":
			l.Window, err = uintMember(key, value)
		case "budget":
			l.Budget, err = uintMember(key, value)
		case "depth":
			l.Depth, err = uintMember(key, value)
		}
		return err
	})
	return l, err
}

func parseFeatures(data []byte) ([]string, error) {
	var list []string
	err := Array(data, 0, func(value []byte) error {
		if len(list) == maxFeatures {
			return fmt.Errorf("%w: more than %d features", ErrMalformed, maxFeatures)
		}
		name, err := stringMember("features", value)
		list = append(list, name)
		return err
	})
	return list, err
}

func wrongType(key string) error {
	return fmt.Errorf("%w: member %q is of the wrong type", ErrMalformed, key)
}

func uintMember(key string, value []byte) (uint64, error) {
	v, ok := parseUint(value)
	if !ok {
		return 0, wrongType(key)
	}
	return v, nil
}

func stringMember(key string, value []byte) (string, error) {
	if !isString(value) {
		return "", wrongType(key)
	}
	return unquote(value), nil
}
