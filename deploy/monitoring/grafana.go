package monitoring

// The model of a dashboard, as small as what ours need of Grafana's; render.go
// writes it in Grafana's words.

// Dashboard is one page.
type Dashboard struct {
	UID, Title, Description string
	Variables               []Variable
	Rows                    []Row
}

// Variable is asked of Prometheus; All lets several or all values be chosen.
type Variable struct {
	Name, Label string
	// Metric and By are the series and the label whose values it has.
	Metric, By string
	All        bool
}

// Row is a group of panels under one title.
type Row struct {
	Title  string
	Panels []Panel
}

// Kind is a type of panel that comes with Grafana.
type Kind string

// The kinds in use.
const (
	Lines Kind = "timeseries"
	Stat  Kind = "stat"
	Table Kind = "table"
	Heat  Kind = "heatmap"
)

// Panel is one picture.
type Panel struct {
	Title, Description string
	Kind               Kind
	Unit               string
	Queries            []Query
	// Width is in the 24 columns of a page; Height is in its rows, 0 for 8.
	Width, Height int
	// Steps are limits from which the value has another colour.
	Steps []Step
	// Top is the upper end of the axis, 0 for what the values need.
	Top   float64
	Stack bool
	// Link is where a click on a value leads; the labels of the value are handed over.
	Link *Link
	// Hide lists columns of a table that are not shown.
	Hide []string
}

// Query is one expression. In a table Legend is the column of its values.
type Query struct {
	Expr, Legend string
	// Unit is that of a table's column.
	Unit string
	// Steps colour a table's column.
	Steps []Step
}

// Step is a colour that begins at a value.
type Step struct {
	From  float64
	Color string
}

// Link leads to another of our dashboards; Vars are variables there, each with
// the label that fills it.
type Link struct {
	Title, UID string
	Vars       map[string]string
}

// bad makes steps for a value that is good while it is small.
func bad(orange, red float64) []Step { return []Step{{orange, "orange"}, {red, "red"}} }

// good makes steps for a value that is good while it is large.
func good(orange, green float64) []Step {
	return []Step{{-1e18, "red"}, {orange, "orange"}, {green, "green"}}
}

// exactlyOne makes steps for what should be there once: two are worse than none.
func exactlyOne() []Step { return []Step{{-1e18, "orange"}, {1, "green"}, {2, "red"}} }

// The selectors of pages that show chosen instances, one cluster, and agents.
const (
	chosen       = `node=~"$node",namespace=~"$namespace",instance=~"$instance"`
	chosenAgent  = `instance=~"$agent"`
	chosenDigest = chosen + `,digest=~"$digest"`
	window       = "$__rate_interval"
)

// members limits an expression to the chosen clusters.
func members(expr string) string {
	return "(" + expr + ") and on (" + byInstance + ") " + clusterInfo + `{cluster=~"$cluster"}`
}

func lines(title, unit string, width int, queries ...Query) Panel {
	return Panel{Title: title, Kind: Lines, Unit: unit, Width: width, Queries: queries}
}

func stat(title, unit string, width int, expr string, steps ...Step) Panel {
	return Panel{Title: title, Kind: Stat, Unit: unit, Width: width, Height: 4, Queries: []Query{{Expr: expr}}, Steps: steps}
}

func q(expr, legend string) Query { return Query{Expr: expr, Legend: legend} }

func (p Panel) about(text string) Panel        { p.Description = text; return p }
func (p Panel) stacked() Panel                 { p.Stack = true; return p }
func (p Panel) upTo(top float64) Panel         { p.Top = top; return p }
func (p Panel) limits(steps []Step) Panel      { p.Steps = steps; return p }
func (p Panel) linked(to Link) Panel           { p.Link = &to; return p }
func (p Panel) hiding(columns ...string) Panel { p.Hide = columns; return p }
func (p Panel) tall(height int) Panel          { p.Height = height; return p }
func table(title string, width int, queries ...Query) Panel {
	return Panel{Title: title, Kind: Table, Width: width, Queries: queries}
}

func column(expr, name, unit string, steps ...Step) Query {
	return Query{Expr: expr, Legend: name, Unit: unit, Steps: steps}
}

// Links between the pages. An instance's id begins with its namespace and a
// recorded cluster's name does, so neither needs more. A label that no series has
// must not be in a link: Grafana would hand over the placeholder itself.
func toCluster() Link { return Link{"Cluster", uidCluster, map[string]string{"cluster": "cluster"}} }
func toInstance() Link {
	return Link{"Instance", uidInstance, map[string]string{"instance": "instance"}}
}
func toDigest() Link {
	return Link{"Digest", uidDigest, map[string]string{"instance": "instance", "digest": "digest"}}
}
func toAgent() Link { return Link{"Agent", uidAgents, map[string]string{"agent": "instance"}} }

// The uids are in bookmarks and links of users: they never change.
const (
	uidFleet    = "mooring-fleet"
	uidCluster  = "mooring-cluster"
	uidInstance = "mooring-instance"
	uidDigest   = "mooring-digest"
	uidAgents   = "mooring-agents"
)

// Dashboards are all pages, from the whole to the parts.
func Dashboards() []Dashboard {
	return []Dashboard{fleetPage(), clusterPage(), instancePage(), digestPage(), agentsPage()}
}

// place are the variables that narrow the choice of instances.
func place() []Variable {
	return []Variable{
		{Name: "node", Label: "Node", Metric: "mooring_instance_info", By: "node", All: true},
		{Name: "namespace", Label: "Namespace", Metric: `mooring_instance_info{node=~"$node"}`, By: "namespace", All: true},
	}
}
