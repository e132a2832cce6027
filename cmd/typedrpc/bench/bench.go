// Package bench compares the JSON of "typedrpc json" with that of others.
package bench
