import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist/", "lib/", ".build/"] },
  tseslint.configs.strictTypeChecked,
  tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: { allowDefaultProject: ["*.js", "*.mjs", "test/*.mjs"] }, tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/no-non-null-assertion": "off", // indexes are checked by hand
      "@typescript-eslint/no-confusing-void-expression": "off",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/prefer-literal-enum-member": ["error", { allowBitwiseExpressions: true }],
      "@typescript-eslint/no-unsafe-enum-comparison": "off", // numbers of frames come from the wire
      "@typescript-eslint/no-floating-promises": "off",
      "@typescript-eslint/no-duplicate-enum-values": "off", // one bit means something else for each type
      "@typescript-eslint/no-dynamic-delete": "off",
      "max-lines": ["error", { max: 400 }],
      "max-lines-per-function": ["error", { max: 60 }],
    },
  },
  { files: ["test/**"], rules: { "max-lines-per-function": "off", "max-lines": ["error", { max: 600 }] } },
  { files: ["**/*.mjs", "*.js"], extends: [tseslint.configs.disableTypeChecked] },
);
