// Command typedrpcvet finds what compiles in a program that uses typedrpc and
// cannot be meant. It is run by go vet, or alone with the same arguments:
//
//	go vet -vettool=$(which typedrpcvet) ./...
//	typedrpcvet ./...
//
// typedrpcvet help lists what it finds; -hiddenerror=false and the like leave one
// of them out.
package main

import (
	"golang.org/x/tools/go/analysis/multichecker"

	"github.com/typedrpc/typedrpc/vet"
)

func main() { multichecker.Main(vet.HiddenError, vet.NoEffect, vet.Dropped, vet.Messages) }
