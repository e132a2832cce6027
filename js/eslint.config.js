import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist/", "lib/", ".build/"] },
  tseslint.configs.strictTypeChecked,
  tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: { allowDefaultProject: ["*.js", "*.mjs", "bench/*.mjs", "test/*.mjs", "test/hosts/*.mjs"] }, tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/no-non-null-assertion": "off", // indexes are checked by hand
      "@typescript-eslint/no-confusing-void-expression": "off",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/prefer-literal-enum-member": ["error", { allowBitwiseExpressions: true }],
      "@typescript-eslint/no-unsafe-enum-comparison": "off", // numbers of frames come from the wire
      "@typescript-eslint/no-floating-promises": "off",
      "@typescript-eslint/no-duplicate-enum-values": "off", // one bit means something else for each type
      "@typescript-eslint/no-dynamic-delete": "off",
      "@typescript-eslint/no-unnecessary-condition": "off", // not every host has what the types of pages promise
      "@typescript-eslint/prefer-nullish-coalescing": "off", // 0 and "" are none on the wire
      "@typescript-eslint/unbound-method": "off", // objects of functions that close over their state have no this
      "@typescript-eslint/no-misused-promises": ["error", { checksVoidReturn: false }],
      "@typescript-eslint/no-meaningless-void-operator": "off",
      "@typescript-eslint/await-thenable": "off", // a turn of the event loop is waited for so
      "max-lines": ["error", { max: 400 }],
    },
  },
  { files: ["test/**"], rules: { "max-lines": ["error", { max: 600 }] } },
  { files: ["**/*.mjs", "*.js"], extends: [tseslint.configs.disableTypeChecked] },
);
