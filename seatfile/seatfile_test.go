package seatfile_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/seatfile"
)

const header = "branch,area,label,amenities,x_cm,y_cm,angle,desk,out_of_service\n"

func number(n int) *int { return &n }

// full is a row with all values.
var full = library.SeatRow{Line: 2, Branch: "main", SeatSpec: library.SeatSpec{
	Area: "Reading Room", Label: "R-01", Amenities: []int16{1, 2}, XCm: number(0), YCm: number(250), Angle: number(90),
	Desk: "D1", OutOfService: true,
}}

func read(t *testing.T, content string) library.SeatFile {
	t.Helper()
	file, faults := seatfile.Read([]byte(content))
	if len(faults) > 0 {
		t.Fatalf("%q: %v", content, faults)
	}
	return file
}

// TestForms reads the same seat from files that different programs write.
func TestForms(t *testing.T) {
	t.Parallel()
	const row = "main,Reading Room,R-01,power_outlet|monitor,0,250,90,D1,true"
	for name, content := range map[string]string{
		"plain":            header + row + "\n",
		"no last newline":  header + row,
		"CRLF":             strings.ReplaceAll(header+row+"\n", "\n", "\r\n"),
		"byte order mark":  "\ufeff" + header + row + "\n",
		"quotes":           header + `"main","Reading Room","R-01","monitor|power_outlet","0","250","90","D1","TRUE"` + "\n",
		"blank last lines": header + row + "\n\n,,,,,,,,\n",
		"semicolons of a German Excel": "\ufeff" + strings.ReplaceAll(header, ",", ";") +
			"main;Reading Room;R-01;power_outlet|monitor;0;250;90;D1;WAHR\r\n;;;;;;;;\r\n",
		"tabs":            strings.ReplaceAll(header+row+"\n", ",", "\t"),
		"capital letters": "Branch,Area,Label,AMENITIES,x_cm,Y_cm,Angle,desk,Out_of_Service\n" + row + "\n",
		"another order": "out_of_service,desk,label,area,branch,amenities,angle,y_cm,x_cm\n" +
			"True,D1,R-01,Reading Room,main,monitor|power_outlet|monitor,090,250,0\n",
	} {
		file := read(t, content)
		if diff := cmp.Diff([]library.SeatRow{full}, file.Rows); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if !slices.Equal(file.Fields, library.SeatFields()) {
			t.Errorf("%s: columns %v", name, file.Fields)
		}
	}
}

func TestAbsentColumnsAndEmptyCells(t *testing.T) {
	t.Parallel()
	file := read(t, "label,branch,desk\nR-01,main,\n")
	if !slices.Equal(file.Fields, []library.SeatField{library.SeatDesk}) {
		t.Errorf("columns %v", file.Fields)
	}
	file = read(t, "branch,label,x_cm,y_cm,angle,amenities,out_of_service\nmain,R-01,,,,,\n")
	want := []library.SeatRow{{Line: 2, Branch: "main", SeatSpec: library.SeatSpec{Label: "R-01"}}}
	if diff := cmp.Diff(want, file.Rows); diff != "" {
		t.Error(diff)
	}
}

// TestFaults reads files with one fault of each kind. Line and column must be right.
func TestFaults(t *testing.T) {
	t.Parallel()
	row := func(cells string) string { return header + "main,A,L-1,,,,,,\n" + cells + "\n" }
	long := strings.Repeat("ü", 101)
	for content, want := range map[string]string{
		"":                                "line 1 is missing",
		"branch,label,colour\n":           `line 1, column "colour" is not a column`,
		"branch,label,area,area\n":        "line 1, column area is there twice",
		"area,label\n":                    "line 1, column branch is missing",
		"branch,area\n":                   "line 1, column label is missing",
		"branch,label,x_cm\n":             "line 1, column y_cm is missing: x_cm",
		"branch,label,y_cm\n":             "line 1, column x_cm is missing: y_cm",
		"branch,label\nmain,\xff\n":       "line 2 is not UTF-8",
		"branch,label\rmain,R-1\r":        "line 1 has carriage returns only",
		row(`main,A,"L-2`):                "line 3 is not CSV",
		row(`main,A,L"2,,,,,,`):           "line 3 is not CSV",
		row("main,A"):                     "line 3 has 2 cells, and the first line has 9",
		row(",A,L-2,,,,,,"):               "line 3, column branch is missing",
		row("main,,L-2,,,,,,"):            "line 3, column area is missing",
		row("main,A,,,,,,,"):              "line 3, column label is missing",
		row("main,A,L-1,,,,,,"):           "line 3, column label is the label of the seat in line 2",
		row("main, A,L-2,,,,,,"):          "line 3, column area must not begin or end with a blank",
		row("main,A," + long + ",,,,,,"):  "line 3, column label must have 1 to 100 characters",
		row("main,A,\"L\n2\",,,,,,"):      "line 3, column label must not contain control characters",
		row("main,A,\"L\r\n2\",,,,,,"):    "line 3, column label must not contain control characters",
		row("main,A,L\u202e2,,,,,,"):      "line 3, column label must not contain control characters",
		row("main,A,L\x002,,,,,,"):        "line 3, column label must not contain control characters",
		row("main,A,L-2,sofa,,,,,"):       `line 3, column amenities "sofa" is not one of power_outlet|monitor|`,
		row("main,A,L-2,monitor|,,,,,"):   `line 3, column amenities "" is not one of`,
		row("main,A,L-2,,1.5,2,,,"):       "line 3, column x_cm must be a whole number",
		row("main,A,L-2,,+1,2,,,"):        "line 3, column x_cm must be a whole number",
		row("main,A,L-2,,1,1000001,,,"):   "line 3, column y_cm must be 0 to 1000000",
		row("main,A,L-2,,1,,,,"):          "line 3, column y_cm is missing: set both",
		row("main,A,L-2,,,,360,,"):        "line 3, column angle must be 0 to 359",
		row("main,A,L-2,,,,,D\u200b,"):    "line 3, column desk must not contain control characters",
		row("main,A,L-2,,,,,,vielleicht"): "line 3, column out_of_service must be true or false",
		row("main,A,L-2,,,,,,1"):          "line 3, column out_of_service must be true or false",
		header + strings.Repeat("x,\"a\nb\",L,,,,,,\n", 2): "line 2, column area must not contain control characters," +
			"line 4, column area must not contain control characters,line 5, column label is the label of the seat in line 2",
	} {
		_, faults := seatfile.Read([]byte(content))
		parts := strings.Split(want, ",line")
		for i := range parts[1:] {
			parts[i+1] = "line" + parts[i+1]
		}
		if len(faults) != len(parts) {
			t.Errorf("%q: %v, want %v", content, faults, parts)
			continue
		}
		for i, f := range faults {
			if got := f.Field + " " + f.Message; !strings.HasPrefix(got, parts[i]) {
				t.Errorf("%q: %s, want %s", content, got, parts[i])
			}
		}
	}
}

// TestAllFaultsAreTold reads a file with many faults. Read reports all, up to MaxFaults.
func TestAllFaultsAreTold(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("branch,label,angle,out_of_service\n")
	for i := range 400 {
		fmt.Fprintf(&b, "main,S-%d,361,no\n", i)
	}
	_, faults := seatfile.Read([]byte(b.String()))
	if len(faults) != 800 || faults[799].Field != "line 401, column angle" {
		t.Errorf("%d faults, the last is %v", len(faults), faults[len(faults)-1])
	}
	for i := range 400 {
		fmt.Fprintf(&b, "main,T-%d,361,no\n", i)
	}
	if _, faults = seatfile.Read([]byte(b.String())); len(faults) != seatfile.MaxFaults {
		t.Errorf("%d faults", len(faults))
	}
	large := "branch,label\n" + strings.Repeat("a,b\n", seatfile.MaxRows+1)
	_, faults = seatfile.Read([]byte(large))
	if len(faults) != seatfile.MaxFaults {
		t.Errorf("%d faults of a file with one seat many times", len(faults))
	}
	b.Reset()
	b.WriteString("branch,label\n")
	for i := range seatfile.MaxRows + 1 {
		fmt.Fprintf(&b, "a,%d\n", i)
	}
	_, faults = seatfile.Read([]byte(b.String()))
	if len(faults) != 1 || faults[0].Field != fmt.Sprintf("line %d", seatfile.MaxRows+2) {
		t.Errorf("too many seats: %v", faults)
	}
}

// TestFormulas writes texts that a spreadsheet program would execute. They are written with an
// apostrophe, and read without.
func TestFormulas(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"=1+1", "+1", "-1 Basement", "@SUM", "＝1", "'=1", "''@x", "'plain", "''", "plain's"} {
		row := full
		row.Label, row.Area, row.Desk = text, text, text
		content, err := seatfile.Write([]library.SeatRow{row})
		if err != nil {
			t.Fatal(err)
		}
		for _, cell := range strings.FieldsFunc(string(content), func(r rune) bool { return r == ',' || r == '\n' }) {
			if strings.ContainsAny(cell[:1], "=+-@") || strings.HasPrefix(cell, "＝") {
				t.Errorf("the file has the cell %q", cell)
			}
		}
		if diff := cmp.Diff([]library.SeatRow{row}, read(t, string(content)).Rows); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
		if text[0] != '\'' { // a librarian types it without an apostrophe
			if got := read(t, "branch,label\nmain,"+text+"\n").Rows[0].Label; got != text {
				t.Errorf("%q is read as %q", text, got)
			}
		}
	}
}

// TestAmenityNamesAreThoseOfTheEnum compares the names with the enum of the API.
func TestAmenityNamesAreThoseOfTheEnum(t *testing.T) {
	t.Parallel()
	var names []string
	for number := 1; number < len(dlsmsv1.Amenity_name); number++ {
		name := strings.ToLower(strings.TrimPrefix(dlsmsv1.Amenity_name[int32(number)], "AMENITY_"))
		names = append(names, name)
		if library.AmenityNumber(name) != int16(number) || library.AmenityName(int16(number)) != name {
			t.Errorf("%s is not amenity %d", name, number)
		}
	}
	if !slices.Equal(names, library.AmenityNames()) {
		t.Errorf("%v, want %v", library.AmenityNames(), names)
	}
}

// FuzzRead reads any bytes. A file without faults must stay the same when it is written and read.
func FuzzRead(f *testing.F) {
	f.Add([]byte(header + "main,Reading Room,R-01,power_outlet|monitor,0,250,90,D1,true\n"))
	f.Add([]byte("\ufefflabel,branch\r\n'=x,main\r\n\"a\"\"b\",main\r\n"))
	f.Add([]byte("branch,label,x_cm\n1;2,\"\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		file, faults := seatfile.Read(content)
		if len(faults) > 0 {
			for _, fault := range faults {
				if !strings.HasPrefix(fault.Field, "line ") || fault.Message == "" {
					t.Errorf("fault %+v", fault)
				}
			}
			return
		}
		for i := range file.Rows { // a file without the column cannot give it back
			if file.Rows[i].Area == "" {
				file.Rows[i].Area = "A"
			}
		}
		written, err := seatfile.Write(file.Rows)
		if err != nil {
			t.Fatal(err)
		}
		again, faults := seatfile.Read(written)
		if len(faults) > 0 {
			t.Fatalf("%q was written as %q: %v", content, written, faults)
		}
		for i := range again.Rows {
			file.Rows[i].Line, again.Rows[i].Line = 0, 0
			file.Rows[i].Amenities = library.SortedAmenities(file.Rows[i].Amenities)
			again.Rows[i].Amenities = library.SortedAmenities(again.Rows[i].Amenities)
		}
		if diff := cmp.Diff(file.Rows, again.Rows); diff != "" {
			t.Fatal(diff)
		}
		twice, err := seatfile.Write(again.Rows)
		if err != nil || !bytes.Equal(written, twice) {
			t.Fatalf("written twice: %q, %q, %v", written, twice, err)
		}
	})
}
