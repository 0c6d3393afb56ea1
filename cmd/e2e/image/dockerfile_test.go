package image

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const dockerfile = `
ARG BASE=golang
FROM ${BASE} AS build
RUN go build \
    -o /out/ ./...
# A remark.
FROM scratch AS agent
LABEL org.title="the agent" org.licenses=Apache-2.0
COPY --from=build /out/agent /agent
COPY --from=build /out/sub/x \
    /etc/agent/x
USER 0:0
EXPOSE 9750 9751/udp
ENTRYPOINT ["/agent", "run"]

FROM scratch as controller
COPY --from=build /out/controller /controller
ENTRYPOINT ["/controller"]
`

func TestParseStage(t *testing.T) {
	t.Run("reads the stage that is asked for", func(t *testing.T) {
		s, err := ParseStage(strings.NewReader(dockerfile), "agent")
		require.NoError(t, err)
		require.Equal(t, Stage{
			Copies: []Copy{{"build", "/out/agent", "/agent"}, {"build", "/out/sub/x", "/etc/agent/x"}},
			Config: Config{
				User: "0:0", Entrypoint: []string{"/agent", "run"},
				ExposedPorts: map[string]struct{}{"9750/tcp": {}, "9751/udp": {}},
				Labels:       map[string]string{"org.title": "the agent", "org.licenses": "Apache-2.0"},
			},
		}, s)
	})
	t.Run("and nothing of the others", func(t *testing.T) {
		s, err := ParseStage(strings.NewReader(dockerfile), "controller")
		require.NoError(t, err)
		require.Equal(t, []Copy{{"build", "/out/controller", "/controller"}}, s.Copies)
		require.Empty(t, s.Config.User)
	})
}

func TestParseStageRefuses(t *testing.T) {
	for name, c := range map[string]struct{ body, message string }{
		"an instruction it does not know": {"FROM scratch AS x\nRUN id", "line 2: RUN is not supported"},
		"a base that is not empty":        {"FROM debian AS x", `begins with "debian"`},
		"a stage that is not there":       {"FROM scratch AS y", `no stage "x"`},
		"a stage without an entry point":  {"FROM scratch AS x\nUSER 1", "has no ENTRYPOINT"},
		"an entry point for a shell":      {"FROM scratch AS x\nENTRYPOINT /x", "is not a JSON list"},
		"a copy from the context":         {"FROM scratch AS x\nCOPY a /a", "want --from=STAGE"},
		"a copy into a folder":            {"FROM scratch AS x\nCOPY --from=b /out/a /bin/", "full name of the target"},
		"a copy of several files":         {"FROM scratch AS x\nCOPY --from=b /out/a /out/b /c", "want --from=STAGE"},
		"a variable":                      {"FROM scratch AS x\nUSER $ID", "variables are not supported"},
		"a label that is no pair":         {"FROM scratch AS x\nLABEL a b", "not a list of name=value"},
		"a line that goes on to nowhere":  {"FROM scratch AS x\nUSER 1 \\", "continued by nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseStage(strings.NewReader(c.body), "x")
			require.ErrorContains(t, err, c.message)
		})
	}
}

func FuzzParseStage(f *testing.F) {
	f.Add(dockerfile)
	f.Add("FROM scratch AS agent\nENTRYPOINT [\"a\"]\nLABEL a=\"b\"c=d")
	f.Add("FROM scratch AS agent \\\n\\\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseStage(strings.NewReader(text), "agent")
		if err != nil {
			return
		}
		require.NotEmpty(t, s.Config.Entrypoint)
		for _, c := range s.Copies {
			require.True(t, strings.HasPrefix(c.Source, "/") && strings.HasPrefix(c.Target, "/"), "%+v", c)
		}
	})
}
