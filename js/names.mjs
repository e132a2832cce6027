// Which properties the build may give short names: those that nobody outside the client sees.
// What hosts give has to have the hosts' own types in src: a member of a type of ours is taken for ours.
import ts from "typescript";
import path from "node:path";

/** Objects that travel as JSON: their members have the names of PROTOCOL.md. */
const travelling = ["Hello", "Body", "ErrorBody", "Limits"];
/** Exported types whose values programs pass on, and do not look into. */
const opaque = ["FragmentsMaker", "Repeat"];

/** The names of the members of all types in src, without those that the package exports, that travel, or that hosts know too. */
export function internalNames() {
  const { options } = ts.parseJsonConfigFileContent(ts.readConfigFile("tsconfig.json", ts.sys.readFile).config, ts.sys, ".");
  const program = ts.createProgram(["src/index.ts"], options);
  const checker = program.getTypeChecker();
  const src = path.resolve("src") + path.sep;
  const ours = (declaration) => path.resolve(declaration.getSourceFile().fileName).startsWith(src);
  const inside = new Set();
  const outside = new Set(["constructor"]);

  /** Notes what the name of a member, used or declared, may refer to. */
  const note = (name, symbol) => {
    const declarations = symbol?.declarations ?? [];
    if (declarations.length && declarations.every(ours)) inside.add(name);
    else outside.add(name);
  };
  const visit = (node) => {
    if (ts.isStringLiteral(node) && !ts.isImportDeclaration(node.parent) && !ts.isExportDeclaration(node.parent)) outside.add(node.text);
    if (ts.isPropertyAccessExpression(node)) note(node.name.text, checker.getSymbolAtLocation(node.name));
    if (ts.isObjectBindingPattern(node)) {
      const type = checker.getTypeAtLocation(node);
      for (const { propertyName, name } of node.elements) {
        const text = (propertyName ?? name).text;
        if (text) note(text, checker.getPropertyOfType(type, text));
      }
    }
    if (ts.isObjectLiteralExpression(node)) {
      const type = checker.getContextualType(node);
      // Whoever takes anything, as console does, looks at what it is given.
      const anyones = type && type.flags & (ts.TypeFlags.Any | ts.TypeFlags.Unknown);
      for (const { name } of node.properties) {
        if (anyones && name?.text) outside.add(name.text);
        const wanted = type && name?.text && checker.getPropertyOfType(checker.getNonNullableType(type), name.text);
        if (name?.text) note(name.text, wanted || checker.getSymbolAtLocation(name));
      }
    }
    if ((ts.isTypeElement(node) || ts.isClassElement(node)) && node.name?.text) inside.add(node.name.text);
    ts.forEachChild(node, visit);
  };
  /** Notes the members of an exported type, and of the types of those. */
  const seen = new Set();
  const publish = (declaration) => {
    if (seen.has(declaration) || !ours(declaration) || opaque.includes(declaration.name?.text)) return;
    seen.add(declaration);
    const walk = (node) => {
      if (node.name && ts.isPrivateIdentifier(node.name)) return;
      if (ts.getJSDocTags(node).some((tag) => tag.tagName.text === "internal")) return;
      if ((ts.isTypeElement(node) || ts.isClassElement(node) || ts.isPropertyAssignment(node) || ts.isParameterPropertyDeclaration(node, node.parent)) && node.name?.text) outside.add(node.name.text);
      if (ts.isTypeReferenceNode(node) || ts.isExpressionWithTypeArguments(node)) {
        const symbol = checker.getSymbolAtLocation(node.typeName ?? node.expression);
        const aliased = symbol && symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
        aliased?.declarations?.forEach(publish);
      }
      ts.forEachChild(node, (child) => (child === node.body ? undefined : walk(child))); // what a function does is its own
    };
    walk(declaration);
  };

  for (const file of program.getSourceFiles()) {
    if (!ours(file)) continue;
    visit(file);
    for (const statement of file.statements) if (ts.isInterfaceDeclaration(statement) && travelling.includes(statement.name.text)) publish(statement);
  }
  const index = checker.getSymbolAtLocation(program.getSourceFile("src/index.ts"));
  for (const symbol of checker.getExportsOfModule(index)) {
    const target = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
    target.declarations?.forEach(publish);
  }
  return [...inside].filter((name) => /^[a-z]/.test(name) && !outside.has(name)).sort();
}
