package strangers

// foreignClients are programs of testdata, what each of them needs, and what it sees
// of a server of ours.
var foreignClients = []struct{ name, needs, saw, log string }{
	{name: "ethers.mjs", needs: "ethers", saw: `
chain "1"
block 16
by position 19
reverted "CALL_EXCEPTION" "no"
refused -32000 "refused" {"why":"because"}
bad params -32602
no method "UNKNOWN_ERROR" -32601
heads 17 18 19
batch [2,16,"no"]
`},
	{name: "viem.mjs", needs: "viem", saw: `
chain 1
block 16
reverted 3 "execution reverted: no"
refused 3 {"why":"because"}
refused -32602 {"why":"because"}
refused -32000 {"why":"because"}
heads "0x11" "0x12" "0x13"
watched 17 18 19
batch [1,2,3]
`},
	{name: "vscode.mjs", needs: "vscode-ws-jsonrpc", saw: `
by name 19
by position 19
one "HELLO"
no params "0, sorted true"
refused 3 "refused" {"why":"because"}
refused -32602 "refused" {"why":"because"}
refused -32000 "refused" {"why":"because"}
no method -32601
noted "100, sorted true"
asked "cba"
asked "invalid argument: execution reverted, number 3, data {\"why\":\"no\"}, answered"
asked "unimplemented: Unhandled method nothing, number -32601, data , answered"
gave up "canceled (may have run), number 0, data , may have run" "cancelled"
progress {"kind":"begin"} {"kind":"end"}
cancelled -32800 "canceled"
left "closed"
gone "link closed by the peer with code 1000: bye" "100, sorted true"
`},
	{name: "json-rpc-2.0.mjs", needs: "json-rpc-2.0", saw: `
by name 19
by position 19
refused 3 "refused" {"why":"because"}
refused -32602 "refused" {"why":"because"}
refused -32000 "refused" {"why":"because"}
noted "100, sorted true"
asked "cba"
asked "invalid argument: execution reverted, number 3, data {\"why\":\"no\"}, answered"
asked "unimplemented: Method not found, number -32601, data , answered"
batch [["a","A"],["b",3]]
noted "1, sorted true"
left [1000,"closed"]
`},
	{name: "jayson.mjs", needs: "jayson", saw: `
by position 19
by name 19
refused {"code":3,"message":"refused","data":{"why":"because"}}
refused {"code":-32602,"message":"refused","data":{"why":"because"}}
refused {"code":-32000,"message":"refused","data":{"why":"because"}}
batch ["A",-32601]
noted "2, sorted true"
by position 19
by name 19
refused {"code":3,"message":"refused","data":{"why":"because"}}
refused {"code":-32602,"message":"refused","data":{"why":"because"}}
refused {"code":-32000,"message":"refused","data":{"why":"because"}}
batch ["A",-32601]
noted "2, sorted true"
`},
	{name: "rpc-websockets.mjs", needs: "rpc-websockets", saw: `
by position 19
by name 19
refused {"code":3,"message":"refused","data":{"why":"because"}}
refused {"code":-32602,"message":"refused","data":{"why":"because"}}
refused {"code":-32000,"message":"refused","data":{"why":"because"}}
no method -32601
login true
noted "100, sorted true"
subscribed {"other":"provided event invalid","ticks":"ok"}
ticks [0] [1] [2]
unsubscribed {"ticks":"ok"}
closed [1012,"the server is shutting down"]
again "open" 19
closed [1012,"the server is shutting down"]
again "open" 19
left [1000,"closed"]
`},
	{name: "ws.mjs", needs: "ws", log: "neither a result nor an error", saw: `
null "{\"jsonrpc\":\"2.0\",\"id\":null,\"result\":\"A\"}"
null "[{\"jsonrpc\":\"2.0\",\"id\":null,\"result\":\"A\"},{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":3,\"message\":\"refused\",\"data\":{\"why\":\"because\"}}}]"
undefined "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"1, sorted true\"}"
ping ["pong","are you there"]
binary ["{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"BINARY\"}",true]
text ["{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":\"TEXT\"}",false]
undefined "{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":\"internal: the peer's answer cannot be read: it has neither a result nor an error, number 0, data , answered\"}"
too large ["{\"jsonrpc\":\"2.0\",\"id\":4,\"error\":{\"code\":8,\"message\":\"the request has 1048580 bytes, at most 1048576 are taken\"}}",false]
too large [1009,"read limited at 1212417 bytes"]
compressed 3000
compressed 3000
compressed 3000
closed [1000,""]
gone "link closed by the peer with code 1000"
noted "100, sorted true"
left [1000,"closed"]
compressed 3000
compressed 3000
compressed 3000
closed [1000,""]
gone "link closed by the peer with code 1000"
noted "100, sorted true"
left [1000,"closed"]
`},
	{name: "undici.mjs", needs: "undici", saw: `
protocol "jsonrpc" "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
text {"jsonrpc":"2.0","id":1,"result":"THE SAME WORDS THE SAME WORDS "}
binary "{\"jsonrpc\":\"2.0\",\"id\":null,\"result\":\"BINARY\"}"
refused {"code":3,"message":"refused","data":{"why":"because"}}
answered "cba"
left [1000,"closed",true]
post [200,"{\"jsonrpc\":\"2.0\",\"id\":null,\"result\":\"A\"}"]
post [200,"[{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"result\":19},{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32000,\"message\":\"refused\",\"data\":{\"why\":\"because\"}}}]"]
post [204,""]
post [413,"the request has more than 1048576 bytes\n"]
`},
	{name: "websockets_peer.py", needs: "websockets", saw: `
answer "bytes" {"jsonrpc":"2.0","id":1,"result":"BYTES"}
answer "str" {"jsonrpc":"2.0","id":"two","result":"TEXT"}
answer "bytes" {"jsonrpc":"2.0","id":null,"result":"NONE"}
answer "str" {"jsonrpc":"2.0","id":3,"result":19}
answer "str" {"jsonrpc":"2.0","id":3,"error":{"code":3,"message":"refused","data":{"why":"because"}}}
answer "str" {"jsonrpc":"2.0","id":-32602,"error":{"code":-32602,"message":"refused","data":{"why":"because"}}}
answer "str" {"jsonrpc":"2.0","id":-32000,"error":{"code":-32000,"message":"refused","data":{"why":"because"}}}
answer "bytes" [{"jsonrpc":"2.0","id":1,"result":"A"}]
answer "str" {"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"unexpected end at offset 1"}}
answer "bytes" {"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no value at offset 0"}}
answer "str" {"jsonrpc":"2.0","id":4,"result":"101, sorted false"}
closed 100 1000 "closed"
gone "link closed by the peer with code 1001: bye"
noted "100, sorted true"
closed 0 1009 "read limited at 1212417 bytes"
`},
	{name: "aiohttp_peer.py", needs: "aiohttp", saw: `
shout 3000
shout 3000
shout 3000
refused {"code":3,"message":"refused","data":{"why":"because"}}
refused {"code":-32602,"message":"refused","data":{"why":"because"}}
refused {"code":-32000,"message":"refused","data":{"why":"because"}}
bytes "BINARY" {"jsonrpc":"2.0","id":null,"result":"BYTES"}
noted "100, sorted true"
asked "cba"
closed 101 1000
shout 3000
shout 3000
shout 3000
refused {"code":3,"message":"refused","data":{"why":"because"}}
refused {"code":-32602,"message":"refused","data":{"why":"because"}}
refused {"code":-32000,"message":"refused","data":{"why":"because"}}
bytes "BINARY" {"jsonrpc":"2.0","id":null,"result":"BYTES"}
noted "100, sorted true"
asked "cba"
closed 101 1000
post 200 "{\"jsonrpc\":\"2.0\",\"id\":null,\"result\":\"A\"}"
post 200 "[{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"result\":19},{\"jsonrpc\":\"2.0\",\"id\":1.5,\"error\":{\"code\":3,\"message\":\"refused\",\"data\":{\"why\":\"because\"}}}]"
post 204 ""
`},
}
