package keyring

import "errors"

// splitWords splits a command line as a shell does, with the smallest set of
// rules that can express any word; nothing is ever expanded:
//
//   - words are separated by spaces, tabs and newlines;
//   - 'single quotes' keep everything between them;
//   - "double quotes" too, but \" and \\ in them are a quote and a backslash;
//   - outside of quotes a backslash keeps the next character.
//
// Quoted and bare parts that touch are one word.
func splitWords(line string) ([]string, error) {
	var words []string
	var word []byte
	inWord := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t', '\n':
			if inWord {
				words, word, inWord = append(words, string(word)), nil, false
			}
			continue
		case '\'', '"':
			end, err := 0, error(nil)
			if word, end, err = quoted(line, i, word); err != nil {
				return nil, err
			}
			i = end
		case '\\':
			i++
			if i == len(line) {
				return nil, errors.New("it ends in a backslash")
			}
			word = append(word, line[i])
		default:
			word = append(word, c)
		}
		inWord = true
	}
	if inWord {
		words = append(words, string(word))
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("it names no command")
	}
	return words, nil
}

// quoted appends to word what stands between the quote at start and the next
// one of its kind, and returns where that is.
func quoted(line string, start int, word []byte) ([]byte, int, error) {
	quote := line[start]
	for i := start + 1; i < len(line); i++ {
		c := line[i]
		if c == quote {
			return word, i, nil
		}
		if c == '\\' && quote == '"' && i+1 < len(line) && (line[i+1] == '"' || line[i+1] == '\\') {
			i++
			c = line[i]
		}
		word = append(word, c)
	}
	return nil, 0, errors.New("a quote is not closed")
}
