package typedrpc

import (
	"fmt"

	"github.com/typedrpc/typedrpc/internal/engine"
)

// notFound is the number with which go-ethereum answers who unsubscribes from what there
// is not.
const notFound = -32000

// verbsOf are the names by which plain peers subscribe: rpc.subscribe and, for each of the
// namespaces, those of Ethereum's convention.
func verbsOf(namespaces []string) (map[string]*engine.Verb, error) {
	verbs := map[string]*engine.Verb{
		"rpc.subscribe":   {Tells: "rpc.subscription"},
		"rpc.unsubscribe": {Tells: "rpc.subscription", Ends: true},
	}
	for _, ns := range namespaces {
		if err := checkName("namespace", ns+"_subscription"); ns == "" || err != nil {
			return nil, fmt.Errorf("typedrpc: Server.Subscribes: %q is no namespace", ns)
		}
		if verbs[ns+"_subscribe"] != nil {
			return nil, fmt.Errorf("typedrpc: Server.Subscribes has %q twice", ns)
		}
		tells := ns + "_subscription"
		verbs[ns+"_subscribe"] = &engine.Verb{Tells: tells, Prefix: ns + "_"}
		verbs[ns+"_unsubscribe"] = &engine.Verb{Tells: tells, Ends: true, Number: notFound}
	}
	return verbs, nil
}
