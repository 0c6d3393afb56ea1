package sqltext

func (l *lexer) redis() { l.literal() }
func (l *lexer) mongo() { l.literal() }
