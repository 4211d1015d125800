package store_test

import (
	"context"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestPostgresAcceptsEveryStatement prepares every statement in the source of the package. A
// misspelt column fails with its place in the source. The test reads the source instead of a list,
// because a list can lack a statement.
//
// The test also fails if Postgres infers a 32-bit type for a parameter, as in $1 = 0. Such a
// statement fails for ids above 2^31.
func TestPostgresAcceptsEveryStatement(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), storetest.NewDB(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	statements := statementsOfPackage(t)
	if len(statements) < 50 {
		t.Errorf("%d statements found: the search for them is broken", len(statements))
	}
	for name, sql := range store.BuiltStatements {
		statements[token.Position{Filename: name}] = sql
	}
	for at, sql := range statements {
		if named.MatchString(sql) {
			if sql, _, err = (pgx.NamedArgs{}).RewriteQuery(t.Context(), conn, sql, nil); err != nil {
				t.Errorf("%v: %v", at, err)
			}
		}
		prepared, err := conn.Prepare(t.Context(), "", sql)
		if err != nil {
			t.Errorf("%v: %v\n%s", at, err, sql)
			continue
		}
		for i, oid := range prepared.ParamOIDs {
			switch oid {
			case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int4ArrayOID: // amenities are smallint[]
				t.Errorf("%v: $%d takes no number above 2^31: cast it to bigint\n%s", at, i+1, sql)
			}
		}
	}
}

var (
	named     = regexp.MustCompile(`@[a-z]`)
	statement = regexp.MustCompile(`^\s*(SELECT|INSERT|UPDATE|DELETE|WITH|SHOW|SET)\s`)
)

// statementsOfPackage returns the SQL statements in the source of this package, by the place that
// uses each. It does not look at declarations of constants: a constant may be only a part of a
// statement, and the place that uses it has the whole statement.
func statementsOfPackage(t *testing.T) map[token.Position]string {
	t.Helper()
	fset := token.NewFileSet()
	var files []*ast.File
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	// The values of string constants do not depend on other packages. So the imported packages are
	// empty, and the errors about names that they lack are ignored.
	config := types.Config{Importer: emptyPackages{}, Error: func(error) {}}
	_, _ = config.Check("store", fset, files, info)
	found := map[token.Position]string{}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			if decl, ok := n.(*ast.GenDecl); ok && decl.Tok == token.CONST {
				return false
			}
			expr, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			value := info.Types[expr].Value
			if value == nil || value.Kind() != constant.String {
				return true
			}
			if sql := constant.StringVal(value); statement.MatchString(sql) {
				found[fset.Position(expr.Pos())] = sql
			}
			return false
		})
	}
	return found
}

type emptyPackages struct{}

func (emptyPackages) Import(path string) (*types.Package, error) {
	name := path[strings.LastIndex(path, "/")+1:]
	if _, err := strconv.Atoi(strings.TrimPrefix(name, "v")); err == nil {
		name = strings.TrimSuffix(path, "/"+name)
		name = name[strings.LastIndex(name, "/")+1:]
	}
	p := types.NewPackage(path, name)
	p.MarkComplete()
	return p, nil
}
