package typedrpctest

// A value that nobody made panics with a sentence, and not somewhere below.

func (n *Network) made() *Network {
	if n == nil || n.hosts == nil {
		panic("typedrpctest: the Network is nil, or was not made by NewNetwork")
	}
	return n
}

func (h *Host) made() *Network {
	if h == nil || h.network == nil {
		panic("typedrpctest: the Host is nil, or was not made by Network.Host")
	}
	return h.network
}

func (p *Proxy) made() *Proxy {
	if p == nil || p.listener == nil {
		panic("typedrpctest: the Proxy is nil, or was not made by NewProxy")
	}
	return p
}

func (f *Faults) made() *Faults {
	if f == nil || !f.begun {
		panic("typedrpctest: the Network or Proxy of these Faults is nil, or was not made by NewNetwork or NewProxy")
	}
	return f
}

func (l *Link) made() *Link {
	if l == nil || l.faults == nil {
		panic("typedrpctest: the Link is nil, or is none of Faults.Links")
	}
	return l
}

func (r *Recorder) made() *Recorder {
	if r == nil {
		panic("typedrpctest: the Recorder is nil")
	}
	return r
}
