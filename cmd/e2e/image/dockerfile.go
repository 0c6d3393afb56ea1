package image

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Stage is what one stage of a Dockerfile makes of an empty image.
type Stage struct {
	Copies []Copy
	Config Config
}

// Copy is one COPY --from.
type Copy struct {
	// From is the stage the file comes from.
	From string
	// Source is its path there, Target its path in the image.
	Source, Target string
}

// ParseStage reads the stage of that name, which must begin with FROM scratch
// and hold nothing but COPY --from, USER, ENTRYPOINT, LABEL and EXPOSE in their
// plainest form. Other stages are passed over.
func ParseStage(r io.Reader, name string) (Stage, error) {
	p := &parser{want: name}
	p.stage.Config.Labels = map[string]string{}
	p.stage.Config.ExposedPorts = map[string]struct{}{}
	s := bufio.NewScanner(r)
	var pending string
	for number := 1; s.Scan(); number++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if head, ok := strings.CutSuffix(line, `\`); ok {
			pending += head + " "
			continue
		}
		if err := p.instruction(pending + line); err != nil {
			return Stage{}, fmt.Errorf("parse Dockerfile: line %d: %w", number, err)
		}
		pending = ""
	}
	if err := s.Err(); err != nil {
		return Stage{}, fmt.Errorf("read Dockerfile: %w", err)
	}
	switch {
	case pending != "":
		return Stage{}, errors.New("parse Dockerfile: the last line is continued by nothing")
	case !p.found:
		return Stage{}, fmt.Errorf("parse Dockerfile: no stage %q", name)
	case len(p.stage.Config.Entrypoint) == 0:
		return Stage{}, fmt.Errorf("parse Dockerfile: stage %q has no ENTRYPOINT", name)
	}
	return p.stage, nil
}

// parser holds the stage that is being read.
type parser struct {
	want          string
	found, inside bool
	stage         Stage
}

// instruction takes one instruction in, with its continuation lines joined.
func (p *parser) instruction(text string) error {
	word, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	if strings.EqualFold(word, "FROM") {
		return p.from(rest)
	}
	if !p.inside {
		return nil
	}
	if strings.Contains(rest, "$") {
		return fmt.Errorf("%s %q: variables are not supported in a final stage", word, rest)
	}
	switch strings.ToUpper(word) {
	case "COPY":
		return p.copy(rest)
	case "USER":
		p.stage.Config.User = rest
	case "ENTRYPOINT":
		if err := json.Unmarshal([]byte(rest), &p.stage.Config.Entrypoint); err != nil {
			return fmt.Errorf("ENTRYPOINT %q is not a JSON list: %w", rest, err)
		}
	case "LABEL":
		return p.labels(rest)
	case "EXPOSE":
		for port := range strings.FieldsSeq(rest) {
			if !strings.Contains(port, "/") {
				port += "/tcp"
			}
			p.stage.Config.ExposedPorts[port] = struct{}{}
		}
	default:
		return fmt.Errorf("%s is not supported in a final stage", word)
	}
	return nil
}

func (p *parser) from(rest string) error {
	f := strings.Fields(rest)
	p.inside = len(f) == 3 && strings.EqualFold(f[1], "AS") && f[2] == p.want
	if !p.inside {
		return nil
	}
	if f[0] != "scratch" {
		return fmt.Errorf("stage %q begins with %q, not with scratch", p.want, f[0])
	}
	p.found = true
	return nil
}

func (p *parser) copy(rest string) error {
	f := strings.Fields(rest)
	from, ok := "", false
	if len(f) == 3 {
		from, ok = strings.CutPrefix(f[0], "--from=")
	}
	if !ok || !strings.HasPrefix(f[1], "/") || !strings.HasPrefix(f[2], "/") || strings.HasSuffix(f[2], "/") {
		return fmt.Errorf("COPY %q: want --from=STAGE /SOURCE /TARGET with the full name of the target", rest)
	}
	p.stage.Copies = append(p.stage.Copies, Copy{From: from, Source: f[1], Target: f[2]})
	return nil
}

func (p *parser) labels(rest string) error {
	pair := regexp.MustCompile(`^([A-Za-z0-9._/-]+)=("[^"]*"|[^\s"]+)(\s+|$)`)
	for rest != "" {
		m := pair.FindStringSubmatch(rest)
		if m == nil {
			return fmt.Errorf("LABEL %q is not a list of name=value", rest)
		}
		p.stage.Config.Labels[m[1]] = strings.Trim(m[2], `"`)
		rest = rest[len(m[0]):]
	}
	return nil
}
