package sqltext

import "bytes"

// redisCommands are the commands of Redis 7 and Valkey 8. Any other first word
// is a placeholder: it may be a command renamed to keep it secret, or the value
// of a stream read from its middle.
var redisCommands = set(`acl append asking auth bgrewriteaof bgsave bitcount bitfield bitfield_ro bitop bitpos blmove blmpop blpop brpop
	brpoplpush bzmpop bzpopmax bzpopmin client cluster command config copy dbsize debug decr decrby del discard dump echo eval
	eval_ro evalsha evalsha_ro exec exists expire expireat expiretime failover fcall fcall_ro flushall flushdb function geoadd
	geodist geohash geopos georadius georadius_ro georadiusbymember georadiusbymember_ro geosearch geosearchstore get getbit
	getdel getex getrange getset hdel hello hexists hexpire hget hgetall hincrby hincrbyfloat hkeys hlen hmget hmset hrandfield
	hscan hset hsetnx hstrlen httl hvals incr incrby incrbyfloat info keys lastsave latency lcs lindex linsert llen lmove lmpop
	lolwut lpop lpos lpush lpushx lrange lrem lset ltrim memory mget migrate module monitor move mset msetnx multi object persist
	pexpire pexpireat pexpiretime pfadd pfcount pfdebug pfmerge pfselftest ping psetex psubscribe psync pttl publish pubsub
	punsubscribe quit randomkey readonly readwrite rename renamenx replconf replicaof reset restore role rpop rpoplpush rpush
	rpushx sadd save scan scard script sdiff sdiffstore select set setbit setex setnx setrange shutdown sinter sintercard
	sinterstore sismember slaveof slowlog smembers smismember smove sort sort_ro spop spublish srandmember srem sscan ssubscribe
	strlen subscribe substr sunion sunionstore sunsubscribe swapdb sync time touch ttl type unlink unsubscribe unwatch wait waitaof
	watch xack xadd xautoclaim xclaim xdel xgroup xinfo xlen xpending xrange xread xreadgroup xrevrange xsetid xtrim zadd zcard
	zcount zdiff zdiffstore zincrby zinter zintercard zinterstore zlexcount zmpop zmscore zpopmax zpopmin zrandmember zrange
	zrangebylex zrangebyscore zrangestore zrank zrem zremrangebylex zremrangebyrank zremrangebyscore zrevrange zrevrangebylex
	zrevrangebyscore zrevrank zscan zscore zunion zunionstore sentinel`)

// redisContainers have a second word that says what is done, one of redisSubs.
var redisContainers = set("acl client cluster command config debug function latency memory module object pubsub script sentinel slowlog xgroup xinfo")

var redisSubs = set(`addslots addslotsrange bumpepoch caching cat channels ckquorum consumers count count-failure-reports countkeysinslot create
	createconsumer delconsumer delete deluser delslots delslotsrange destroy docs doctor dryrun dump encoding exists failover fail
	flush flushall flushconfig flushslots forget freq genpass get get-master-addr-by-name getkeys getkeysandflags getkeysinslot
	getname getredir getuser graph groups help histogram history id idletime info keyslot kill latest len links list listpack load
	loadex log malloc-stats master masters meet monitor myid myshardid no-evict no-touch nodes numpat numsub object pause purge
	refcount remove replicas replicate reply reset resetstat restore rewrite saveconfig segfault sentinels set set-config-epoch
	setid setinfo setname setslot setuser shardchannels shardnumsub shards slaves slots sleep stats stream tracking trackinginfo
	unblock unload unpause usage users whoami`)

// redisLists take any number of keys, or of keys and values, and nothing else.
var redisLists = set(`del exists mget mset msetnx pfcount pfmerge psubscribe punsubscribe sdiff sinter ssubscribe subscribe sunion
	sunsubscribe touch unlink unsubscribe watch`)

// redisSecret says whether the arguments of a command may hold a password.
func redisSecret(cmd, sub []byte) bool {
	var a, b [32]byte
	s := string(lower(b[:0], sub[:min(len(sub), len(b))]))
	switch string(lower(a[:0], cmd[:min(len(cmd), len(a))])) {
	case "auth", "hello", "migrate", "acl", "sentinel":
		return true
	case "config":
		return s != "get" && s != "resetstat" && s != "rewrite" && s != "help"
	}
	return false
}

// redis reads the first command of a batch: its name and, where it says what
// is done, the second word; arguments are placeholders, at most two.
func (l *lexer) redis() {
	cmd, sub, n := redisCommand(l.text)
	if len(cmd) == 0 {
		l.literal()
		return
	}
	var b [40]byte
	name := lower(b[:0], cmd[:min(len(cmd), len(b))])
	if !redisCommands[string(name)] {
		l.literal()
		return
	}
	l.redisWord(name)
	list := redisLists[string(name)]
	secret := redisSecret(cmd, sub)
	if redisContainers[string(name)] {
		if name = lower(b[:0], sub[:min(len(sub), len(b))]); redisSubs[string(name)] {
			l.redisWord(name)
			n--
		}
	}
	if secret {
		return
	}
	if list {
		n = min(n, 1)
	}
	for range min(n, 2) {
		l.prev = none
		l.literal()
	}
}

// redisWord emits a name of Redis, in capitals as its users write it.
func (l *lexer) redisWord(w []byte) {
	l.h = mix(l.h, uint64(len(w))<<8|tagQuoted)
	l.chunks(w)
	if l.keep {
		l.writeName(bytes.ToUpper(w), false)
	}
}

// redisCommand is the first word, the second word and the number of arguments
// of the first command in text, which may be cut.
func redisCommand(text []byte) (cmd, sub []byte, args int) {
	for len(text) > 0 {
		if text[0] != '*' {
			line, rest := redisLine(text)
			if words := redisInline(line); words.n > 0 {
				return words.first, words.second, words.n - 1
			}
			text = rest
			continue
		}
		line, rest := redisLine(text)
		n := redisNumber(line)
		if n <= 0 {
			text = rest
			continue
		}
		cmd, rest = redisBulk(rest)
		if n > 1 {
			sub, _ = redisBulk(rest)
		}
		return cmd, sub, n - 1
	}
	return nil, nil, 0
}

// redisLine splits text behind its first line.
func redisLine(text []byte) (line, rest []byte) {
	k := bytes.IndexByte(text, '\n')
	if k < 0 {
		return text, nil
	}
	return bytes.TrimSuffix(text[:k], []byte("\r")), text[k+1:]
}

// redisNumber is the number behind the type byte of a line, or -1.
func redisNumber(line []byte) int {
	n := 0
	if len(line) < 2 || len(line) > 10 {
		return -1
	}
	for _, c := range line[1:] {
		if classes[c] != cDigit {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// redisBulk is the bulk string at the head of text, nil if it is not whole.
func redisBulk(text []byte) (s, rest []byte) {
	if len(text) == 0 || text[0] != '$' {
		return nil, nil
	}
	line, rest := redisLine(text)
	n := redisNumber(line)
	if n < 0 || n > len(rest) {
		return nil, nil
	}
	return rest[:n], bytes.TrimPrefix(rest[n:], []byte("\r\n"))
}

type inline struct {
	first, second []byte
	n             int
}

// redisInline splits a line at spaces; quotes only matter for what is dropped.
func redisInline(line []byte) (w inline) {
	for {
		line = bytes.TrimLeft(line, " \t\r\n\x00")
		if len(line) == 0 || w.n == 3 {
			return w
		}
		k := bytes.IndexAny(line, " \t\r\n")
		if k < 0 {
			k = len(line)
		}
		switch w.n++; w.n {
		case 1:
			w.first = line[:k]
		case 2:
			w.second = line[:k]
		}
		line = line[k:]
	}
}
